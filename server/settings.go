package server

import (
	"encoding"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Setting is one field of Config as a user sees it. The table of them is the
// only place that knows a setting's names, so that file, variables, flags and
// documentation cannot differ.
type Setting struct {
	// Key is the name in a configuration file, such as "data_dir".
	Key string

	// Arg names the value in a help text, such as "DIR"; "" for a Switch.
	Arg string

	// Usage says what it is for, in a phrase without a full stop.
	Usage string

	// field returns where the value is kept. Its type says how the value is
	// read and shown.
	field func(*Config) any
}

// settings is the table, in the order in which a reader wants it.
var settings = []Setting{
	{
		"data_dir", "DIR",
		"directory of the log; created when missing",
		func(c *Config) any { return &c.DataDir },
	},
	{
		"wal_failover_dir", "DIR",
		"directory on another disk, to which the write-ahead log moves while the disk of data_dir stalls; unset is none",
		func(c *Config) any { return &c.WALFailoverDir },
	},
	{
		"nats_url", "URL",
		"keep the log on this NATS server or cluster (nats://host:4222, several separated by commas) instead of in data_dir",
		func(c *Config) any { return &c.NATSURL },
	},
	{
		"nats_credentials", "FILE",
		"NATS credentials for nats_url",
		func(c *Config) any { return &c.NATSCredentials },
	},
	{
		"accept_unsynced_nodes", "",
		"start although nodes of nats_url are seen not to sync each write (sync_interval: always): " +
			"a power cut may then take what the vendor was answered 0 for",
		func(c *Config) any { return &c.AcceptUnsyncedNodes },
	},

	{
		"callback_addr", "ADDR",
		"where the vendor posts callbacks",
		func(c *Config) any { return &c.CallbackAddr },
	},
	{
		"grpc_addr", "ADDR",
		"where the gRPC API listens; it has no authentication yet",
		func(c *Config) any { return &c.GRPCAddr },
	},
	{
		"advertise_addr", "ADDR",
		"where other gateways of the same nats_url reach the gRPC API of this one, to forward calls to the leader of a consumer group; " +
			"unset is grpc_addr, with this machine's name when that is every address",
		func(c *Config) any { return &c.AdvertiseAddr },
	},
	{
		"http_addr", "ADDR",
		"where the HTTP API, /metrics, /healthz and /readyz listen; it has no authentication yet",
		func(c *Config) any { return &c.HTTPAddr },
	},

	{
		"sources", "SOURCE",
		"who may post callbacks, as name=NAME,path=PATH,token=TOKEN,signature_token=TOKEN; a token is env:VARIABLE, " +
			"file:PATH, sha256:HEX or the text itself; a token can be repeated, and so can the flag",
		func(c *Config) any { return &c.Sources },
	},

	{
		"max_body", "SIZE",
		"largest callback",
		func(c *Config) any { return &c.MaxBody },
	},
	{
		"commit_timeout", "DURATION",
		"how long a callback may wait for stable storage before the vendor is answered 503",
		func(c *Config) any { return &c.CommitTimeout },
	},
	{
		"dedupe_window", "DURATION",
		"how long a callback that comes again is recognised; at most max_age, and with nats_url 2h",
		func(c *Config) any { return &c.DedupeWindow },
	},

	{
		"max_age", "DURATION",
		"how long events are kept; 0 is for ever",
		func(c *Config) any { return &c.MaxAge },
	},
	{
		"max_bytes", "SIZE",
		"how large the log may grow; 0 is until only min_free is left",
		func(c *Config) any { return &c.MaxBytes },
	},
	{
		"on_full", "POLICY",
		"what happens at max_bytes: reject answers the vendor 503, drop_oldest removes the oldest events",
		func(c *Config) any { return &c.OnFull },
	},
	{
		"min_free", "SIZE",
		"space to leave on the disk: below it the vendor is answered 503",
		func(c *Config) any { return &c.MinFree },
	},

	{
		"quarantine_max_age", "DURATION",
		"how long callbacks that are not JSON are kept; 0 is for ever",
		func(c *Config) any { return &c.QuarantineMaxAge },
	},
	{
		"quarantine_max_bytes", "SIZE",
		"how much of them is kept: beyond it the oldest are removed",
		func(c *Config) any { return &c.QuarantineMaxBytes },
	},

	{
		"accept_data_loss", "",
		"start although the log in data_dir holds less than was acknowledged, with what is left; cursors of before become invalid",
		func(c *Config) any { return &c.AcceptDataLoss },
	},
	{
		"drain_timeout", "DURATION",
		"how long a stop may take",
		func(c *Config) any { return &c.DrainTimeout },
	},

	{
		"reflection", "",
		"describe the API to gRPC clients that ask, such as grpcurl",
		func(c *Config) any { return &c.Reflection },
	},
	{
		"pprof", "",
		"serve profiles under /debug/pprof/ on http_addr",
		func(c *Config) any { return &c.PProf },
	},

	{
		"log_level", "LEVEL",
		"debug, info, warn or error",
		func(c *Config) any { return &c.LogLevel },
	},
	{
		"log_format", "FORMAT",
		"text or json",
		func(c *Config) any { return &c.LogFormat },
	},
}

// Settings returns what can be set, in the order in which to show it.
func Settings() []Setting { return slices.Clone(settings) }

// Flag returns the name of the setting's flag, without dashes.
func (s Setting) Flag() string {
	if s.Repeatable() {
		return "source" // each names one
	}
	return strings.ReplaceAll(s.Key, "_", "-")
}

// Env returns the name of the setting's environment variable.
func (s Setting) Env() string { return envPrefix + strings.ToUpper(s.Key) }

// Repeatable reports whether the flag may be given several times. As one text,
// the values are joined by semicolons.
func (s Setting) Repeatable() bool { return s.Key == "sources" }

// Switch reports whether the flag is on when it has no value.
func (s Setting) Switch() bool {
	_, ok := s.field(new(Config)).(*bool)
	return ok
}

// Default returns the value of DefaultConfig as text; "" for none.
func (s Setting) Default() string {
	c := DefaultConfig()
	if s.Repeatable() {
		return ""
	}
	return fmt.Sprint(s.show(&c))
}

// set parses value, a text or what YAML made of one, and keeps it in c.
func (s Setting) set(c *Config, value any) error {
	field := s.field(c)
	if sources, ok := field.(*[]Source); ok {
		return setSources(sources, value)
	}
	switch value.(type) {
	case nil:
		return fmt.Errorf("has no value: give one or remove the line")
	case []any, map[string]any:
		return fmt.Errorf("is a list or a map, want one value")
	}
	text := fmt.Sprint(value)
	var err error
	switch field := field.(type) {
	case *string:
		*field = text
	case *URL:
		*field = URL(text)
	case *OnFull:
		*field = OnFull(text)
	case *LogFormat:
		*field = LogFormat(text)
	case *bool:
		if *field, err = strconv.ParseBool(text); err != nil {
			return fmt.Errorf("%q is neither true nor false", text)
		}
	case *time.Duration:
		if *field, err = time.ParseDuration(text); err != nil {
			return fmt.Errorf("%q is no duration such as 500ms, 3s, 30m or 168h", text)
		}
	case encoding.TextUnmarshaler:
		return field.UnmarshalText([]byte(text))
	default:
		return fmt.Errorf("cannot be set: %T has no parser", field)
	}
	return nil
}

// show returns the value in c as a person should see it, without secrets, and
// as YAML wants it.
func (s Setting) show(c *Config) any {
	switch field := s.field(c).(type) {
	case *string:
		return *field
	case *URL:
		return field.String()
	case *OnFull:
		return string(*field)
	case *LogFormat:
		return string(*field)
	case *bool:
		return *field
	case *time.Duration:
		return showDuration(*field)
	case *Size:
		if *field == 0 {
			return 0 // not "0", in YAML
		}
		return field.String()
	case *slog.Level:
		return strings.ToLower(field.String())
	case *[]Source:
		return showSources(*field)
	default:
		return fmt.Sprint(field)
	}
}

// showDuration leaves out the zeros of "168h0m0s".
func showDuration(d time.Duration) string {
	text := d.String()
	if d >= time.Minute {
		text = strings.TrimSuffix(text, "0s")
	}
	if d >= time.Hour {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// masked stands for a secret.
const masked = "******"

// String returns the URLs without what may be secret in them.
func (u URL) String() string {
	parts := strings.Split(string(u), ",")
	for i, part := range parts {
		parsed, err := url.Parse(strings.TrimSpace(part))
		switch {
		case part == "":
		case err != nil:
			parts[i] = masked
		case parsed.User != nil:
			parsed.User = nil
			parts[i] = strings.Replace(parsed.String(), "//", "//"+masked+"@", 1)
		}
	}
	return strings.Join(parts, ",")
}
