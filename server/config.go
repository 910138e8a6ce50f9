package server

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluicegate/sluice/server/ingest"
)

// Config is everything about a Server that can be set. DefaultConfig fills it;
// the zero Config is not valid. What each field is for, and how a file, a
// variable or a flag sets it, is in Settings.
type Config struct {
	// The log is in DataDir, in the local engine, or with a NATSURL in that
	// cluster, in the cluster engine. What is of the other engine must be unset,
	// but for DataDir.
	DataDir             string
	WALFailoverDir      string // local; "" is none
	NATSURL             URL    // "" is the local engine
	NATSCredentials     string // cluster; "" is none
	AcceptUnsyncedNodes bool   // cluster

	CallbackAddr string // host:port; port 0 is any free one, as in the next two
	GRPCAddr     string
	HTTPAddr     string

	// AdvertiseAddr is where other gateways of the same NATSURL reach GRPCAddr.
	// "" is GRPCAddr's, with the host's name where that is every address.
	AdvertiseAddr string

	Sources []Source // none is ingest.DefaultSource, open to all

	MaxBody       Size // of a callback
	CommitTimeout time.Duration
	DedupeWindow  time.Duration

	MaxAge   time.Duration // 0 is for ever
	MaxBytes Size          // 0 is as far as MinFree allows
	OnFull   OnFull
	MinFree  Size // 0 is no reserve

	QuarantineMaxAge   time.Duration // 0 is for ever
	QuarantineMaxBytes Size

	AcceptDataLoss bool
	DrainTimeout   time.Duration

	Reflection bool
	PProf      bool

	LogLevel  slog.Level
	LogFormat LogFormat

	// Registry takes the metrics and is what /metrics shows. nil is a new one.
	Registry *prometheus.Registry

	// Hangup asks, with each value, to read the sources again from where
	// LoadConfig has read them. That is done after every change, too; Hangup does
	// not wait until it is seen. nil never asks.
	Hangup <-chan os.Signal

	inputs   *Inputs // where LoadConfig has read it; nil when it has not, and nothing is read again
	limits   limits  // of the HTTP listeners; the zero value is the defaults
	leaseTTL time.Duration
}

// A Source is a tenant: whoever posts callbacks to one URL. Its secrets are
// kept as they were written, such as "env:ACME_TOKEN"; ingest.ParseSecret says
// what they may be. The path is a secret, too, unless it is "/".
type Source struct {
	Name           string
	Path           string // "" is "/"
	Tokens         []string
	SignatureToken string // "" is none
}

// URL is the address of a NATS server, or several separated by commas. It may
// hold passwords; String leaves them out.
type URL string

// OnFull is what happens to a callback when the log is at Config.MaxBytes.
type OnFull string

// The values of OnFull.
const (
	OnFullReject     OnFull = "reject"      // the vendor is answered 503
	OnFullDropOldest OnFull = "drop_oldest" // the oldest events are removed
)

// LogFormat is the form of the process's own log.
type LogFormat string

// The values of LogFormat.
const (
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

// DefaultConfig returns the configuration of a server on one machine that can
// be reached from that machine only.
func DefaultConfig() Config {
	return Config{
		DataDir:            "data",
		CallbackAddr:       "127.0.0.1:8080",
		GRPCAddr:           "127.0.0.1:9090",
		HTTPAddr:           "127.0.0.1:9091",
		MaxBody:            1 << 20, // 1 MiB
		CommitTimeout:      3 * time.Second,
		DedupeWindow:       24 * time.Hour,
		MaxAge:             7 * 24 * time.Hour,
		OnFull:             OnFullReject,
		MinFree:            256 << 20, // 256 MiB
		QuarantineMaxAge:   30 * 24 * time.Hour,
		QuarantineMaxBytes: 256 << 20, // 256 MiB
		DrainTimeout:       15 * time.Second,
		Reflection:         true,
		LogLevel:           slog.LevelInfo,
		LogFormat:          LogText,
	}
}

// Bounds that Validate holds settings to.
const (
	minMaxBody = 1 << 10 // 1 KiB: less refuses ordinary messages
	maxMaxBody = 16 << 20

	// maxCommitTimeout leaves room below the callback listener's write timeout.
	maxCommitTimeout = 8 * time.Second
)

// Validate reports every problem with c, not just the first. Each line of the
// error starts with the setting's key. It reads the variables and files that
// the sources' secrets are in.
func (c Config) Validate() error {
	var p problems
	if c.NATSURL == "" {
		p.when(c.DataDir == "", "data_dir", "must be set")
		p.when(c.NATSCredentials != "", "nats_credentials", "is for a log in a cluster, but nats_url is not set")
		p.when(c.AcceptUnsyncedNodes, "accept_unsynced_nodes", "is for a log in a cluster, but nats_url is not set")
		p.when(c.AdvertiseAddr != "", "advertise_addr", "is for several gateways of one cluster, but nats_url is not set")
		p.when(within(c.WALFailoverDir, c.DataDir) || within(c.DataDir, c.WALFailoverDir), "wal_failover_dir",
			"%s and data_dir (%s) must be apart, on different disks", c.WALFailoverDir, c.DataDir)
	} else {
		p.when(c.WALFailoverDir != "", "wal_failover_dir", "is for a log in data_dir, but nats_url is set")
		for part := range strings.SplitSeq(string(c.NATSURL), ",") {
			u, err := url.Parse(strings.TrimSpace(part))
			// The error's text holds the URL, and that may hold a password.
			p.when(err != nil || u.Host == "", "nats_url", "is no URL such as nats://host:4222")
		}
	}

	p.address("callback_addr", c.CallbackAddr)
	p.address("grpc_addr", c.GRPCAddr)
	p.address("http_addr", c.HTTPAddr)
	if c.AdvertiseAddr != "" {
		host, port, err := net.SplitHostPort(c.AdvertiseAddr)
		n, _ := strconv.ParseUint(port, 10, 16)
		p.when(err != nil || n == 0 || host == "" || strings.ContainsAny(host, " ") || net.ParseIP(host).IsUnspecified(), "advertise_addr",
			"%q is not the host:port at which other gateways reach this one, such as 10.0.0.7:9090", c.AdvertiseAddr)
	}
	p.sources(c)

	p.when(c.MaxBody < minMaxBody || c.MaxBody > maxMaxBody, "max_body", "%v is not between %v and %v",
		c.MaxBody, Size(minMaxBody), Size(maxMaxBody))
	p.when(c.CommitTimeout <= 0 || c.CommitTimeout > maxCommitTimeout, "commit_timeout", "%v is not between 0s and %v",
		c.CommitTimeout, maxCommitTimeout)
	p.when(c.DrainTimeout < c.CommitTimeout || c.DrainTimeout <= 0, "drain_timeout",
		"%v is shorter than commit_timeout (%v), which a callback may take", c.DrainTimeout, c.CommitTimeout)

	p.when(c.DedupeWindow <= 0, "dedupe_window", "%v is not positive", c.DedupeWindow)
	p.when(c.MaxAge < 0, "max_age", "%v is negative", c.MaxAge)
	p.when(c.MaxAge > 0 && c.MaxAge < c.DedupeWindow, "max_age",
		"%v is shorter than dedupe_window (%v), which reads what is kept", c.MaxAge, c.DedupeWindow)
	p.when(c.MaxBytes < 0, "max_bytes", "%d is negative", c.MaxBytes)
	p.when(c.MaxBytes > 0 && c.MaxBytes < 4*c.MaxBody, "max_bytes",
		"%v is less than four callbacks of max_body (%v)", c.MaxBytes, c.MaxBody)
	p.when(c.OnFull != OnFullReject && c.OnFull != OnFullDropOldest, "on_full",
		"%q is neither reject nor drop_oldest", c.OnFull)
	p.when(c.OnFull == OnFullDropOldest && c.MaxBytes == 0, "on_full",
		"drop_oldest needs max_bytes: without it nothing says when the log is full")
	p.when(c.MinFree < 0, "min_free", "%d is negative", c.MinFree)
	p.when(c.QuarantineMaxAge < 0, "quarantine_max_age", "%v is negative", c.QuarantineMaxAge)
	p.when(c.QuarantineMaxAge > 0 && c.QuarantineMaxAge < c.DedupeWindow, "quarantine_max_age",
		"%v is shorter than dedupe_window (%v), which reads what is kept", c.QuarantineMaxAge, c.DedupeWindow)
	p.when(c.QuarantineMaxBytes < 4*c.MaxBody, "quarantine_max_bytes",
		"%v is less than four callbacks of max_body (%v)", c.QuarantineMaxBytes, c.MaxBody)

	p.when(c.LogFormat != LogText && c.LogFormat != LogJSON, "log_format", "%q is neither text nor json", c.LogFormat)
	return errors.Join(p...)
}

// within reports whether a directory is another one, or below it. Neither may be
// there yet.
func within(dir, other string) bool {
	if dir == "" || other == "" {
		return false
	}
	a, errA := filepath.Abs(dir)
	b, errB := filepath.Abs(other)
	if errA != nil || errB != nil {
		return false // the working directory is gone: opening the log says so
	}
	below, err := filepath.Rel(b, a)
	return err == nil && filepath.IsLocal(below)
}

// problems collects what is wrong.
type problems []error

// when adds a problem with the setting if it is there.
func (p *problems) when(wrong bool, key, format string, args ...any) {
	if wrong {
		*p = append(*p, fmt.Errorf(key+": "+format, args...))
	}
}

func (p *problems) address(key, addr string) {
	_, port, err := net.SplitHostPort(addr)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	p.when(err != nil, key, "%q is not host:port, such as 127.0.0.1:8080 or :8080 for every address of this machine", addr)
}

// sources checks the sources, and that nobody who is not on this machine can
// post without a secret.
func (p *problems) sources(c Config) {
	sources, errs := c.ingestSources()
	if len(errs) > 0 {
		*p = append(*p, prefixed("sources: ", errors.Join(errs...)))
		return
	}
	if err := ingest.Validate(sources); err != nil {
		*p = append(*p, prefixed("sources: ", err))
	}
	if loopback(c.CallbackAddr) {
		return
	}
	if len(c.Sources) == 0 {
		p.when(true, "sources", "callback_addr %s can be reached from other machines, and without a source "+
			"anyone there could post callbacks: set one with a secret, such as "+
			"--source 'name=acme,path=/hook-7f3a,token=env:ACME_TOKEN'", c.CallbackAddr)
		return
	}
	for _, source := range sources {
		p.when(source.Open(), "sources", "%s accepts callbacks without a secret, and callback_addr %s can be reached "+
			"from other machines: give it a token, such as token=env:ACME_TOKEN, or a path nobody can guess",
			source.Name, c.CallbackAddr)
	}
}

// ingestSources resolves the secrets. The errors name the source, not the
// secret.
func (c Config) ingestSources() (sources []ingest.Source, errs []error) {
	if len(c.Sources) == 0 {
		return []ingest.Source{ingest.DefaultSource()}, nil
	}
	secret := func(source, field, text string) ingest.Secret {
		s, err := ingest.ParseSecret(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %s: %w", source, field, err))
		}
		return s
	}
	for _, source := range c.Sources {
		resolved := ingest.Source{Name: source.Name, Path: cmp.Or(source.Path, "/")}
		for _, token := range source.Tokens {
			resolved.Tokens = append(resolved.Tokens, secret(source.Name, "tokens", token))
		}
		if source.SignatureToken != "" {
			resolved.SignatureToken = secret(source.Name, "signature_token", source.SignatureToken)
		}
		sources = append(sources, resolved)
	}
	return sources, errs
}

// loopback reports whether addr can be reached from this machine only.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return true // not an address at all, and that is reported elsewhere
	}
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}
