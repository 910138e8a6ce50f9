package server

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestConfigValidate(t *testing.T) {
	const public = ":8080"
	tests := map[string]struct {
		edit func(*Config)
		want []string // starts of the error's lines, in order; none means valid
	}{
		"default":           {edit: func(*Config) {}},
		"free ports":        {edit: func(c *Config) { c.GRPCAddr, c.HTTPAddr = "127.0.0.1:0", "[::1]:0" }},
		"no data dir":       {edit: func(c *Config) { c.DataDir = "" }, want: []string{"data_dir: must be set"}},
		"external":          {edit: func(c *Config) { c.DataDir, c.NATSURL = "", "nats://a:4222, nats://b:4222" }},
		"external, no host": {edit: func(c *Config) { c.NATSURL = "hunter2" }, want: []string{"nats_url: is no URL"}},
		"stray credentials": {edit: func(c *Config) { c.NATSCredentials = "f" }, want: []string{"nats_credentials: is for"}},
		"advertised":        {edit: func(c *Config) { c.NATSURL, c.AdvertiseAddr = "nats://a:4222", "gate-1.internal:9090" }},
		"advertised to nobody": {
			edit: func(c *Config) { c.AdvertiseAddr = "gate-1.internal:9090" },
			want: []string{"advertise_addr: is for several gateways"},
		},
		"advertised, no port": {
			edit: func(c *Config) { c.NATSURL, c.AdvertiseAddr = "nats://a:4222", "gate-1.internal" },
			want: []string{`advertise_addr: "gate-1.internal"`},
		},
		"advertised, everywhere": {
			edit: func(c *Config) { c.NATSURL, c.AdvertiseAddr = "nats://a:4222", "0.0.0.0:9090" },
			want: []string{`advertise_addr: "0.0.0.0:9090"`},
		},
		"WAL failover": {edit: func(c *Config) { c.WALFailoverDir = "/other/disk" }},
		"WAL failover to data_dir": {
			edit: func(c *Config) { c.WALFailoverDir = "./data/" }, want: []string{"wal_failover_dir: ./data/ and data_dir (data)"},
		},
		"WAL failover below data_dir": {edit: func(c *Config) { c.WALFailoverDir = "data/wal" }, want: []string{"wal_failover_dir: "}},
		"WAL failover above data_dir": {edit: func(c *Config) { c.WALFailoverDir = "." }, want: []string{"wal_failover_dir: "}},
		"settings of the other engine": {
			edit: func(c *Config) { c.AcceptUnsyncedNodes = true }, want: []string{"accept_unsynced_nodes: is for a log in a cluster"},
		},
		"settings of the local engine": {
			edit: func(c *Config) { c.NATSURL, c.WALFailoverDir = "nats://host:4222", "/other/disk" },
			want: []string{"wal_failover_dir: is for a log in data_dir"},
		},
		"address":          {edit: func(c *Config) { c.GRPCAddr = "9090" }, want: []string{`grpc_addr: "9090"`}},
		"port":             {edit: func(c *Config) { c.HTTPAddr = "127.0.0.1:70000" }, want: []string{`http_addr: "127.0.0.1:70000"`}},
		"tiny body":        {edit: func(c *Config) { c.MaxBody = 100 }, want: []string{"max_body: 100 is not between 1KiB and 16MiB"}},
		"long commit":      {edit: func(c *Config) { c.CommitTimeout = 9 * time.Second }, want: []string{"commit_timeout: 9s"}},
		"short drain":      {edit: func(c *Config) { c.DrainTimeout = time.Second }, want: []string{"drain_timeout: 1s"}},
		"short age":        {edit: func(c *Config) { c.MaxAge = time.Minute }, want: []string{"max_age: 1m0s"}},
		"short quarantine": {edit: func(c *Config) { c.QuarantineMaxAge = time.Minute }, want: []string{"quarantine_max_age: 1m0s"}},
		"small log":        {edit: func(c *Config) { c.MaxBytes = 1 << 20 }, want: []string{"max_bytes: 1MiB"}},
		"drop, no bound":   {edit: func(c *Config) { c.OnFull = OnFullDropOldest }, want: []string{"on_full: drop_oldest needs max_bytes"}},
		"drop":             {edit: func(c *Config) { c.OnFull, c.MaxBytes = OnFullDropOldest, 1<<30 }},
		"all at once": {edit: func(c *Config) { *c = Config{} }, want: []string{
			"data_dir", "callback_addr", "grpc_addr", "http_addr", "max_body", "commit_timeout", "drain_timeout",
			"dedupe_window", "on_full", "log_format",
		}},

		"open on loopback": {edit: func(c *Config) { c.CallbackAddr = "localhost:8080" }},
		"open to all":      {edit: func(c *Config) { c.CallbackAddr = public }, want: []string{"sources: callback_addr :8080"}},
		"open by name":     {edit: func(c *Config) { c.CallbackAddr = "gate.internal:80" }, want: []string{"sources: callback_addr gate.internal:80"}},
		"one open source": {edit: func(c *Config) {
			c.CallbackAddr = public
			c.Sources = []Source{{Name: "shut", Path: "/shut", Tokens: []string{"t"}}, {Name: "wide", Path: "/"}}
		}, want: []string{"sources: wide accepts callbacks without a secret"}},
		"no open source": {edit: func(c *Config) {
			c.CallbackAddr = public
			c.Sources = []Source{{Name: "token", Tokens: []string{"t"}}, {Name: "path", Path: "/hook-7f3a"}}
		}},
		"unresolved secrets": {edit: func(c *Config) {
			c.Sources = []Source{{Name: "a", Tokens: []string{"env:NOT_SET_ANYWHERE", "t"}, SignatureToken: "sha256:hunter2"}}
		}, want: []string{"sources: a: tokens: ", "sources: a: signature_token: "}},
		"source twice": {edit: func(c *Config) {
			c.Sources = []Source{{Name: "a", Path: "/a"}, {Name: "a", Path: "/b"}}
		}, want: []string{"sources: "}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			cfg := DefaultConfig()
			tt.edit(&cfg)
			err := cfg.Validate()
			if len(tt.want) == 0 {
				if err != nil {
					t.Fatalf("Validate() = %v, want nil", err)
				}
				return
			}
			if err == nil {
				t.Fatalf("Validate() = nil, want %q", tt.want)
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(tt.want) {
				t.Fatalf("Validate() = %d lines, want %d:\n%v", len(lines), len(tt.want), err)
			}
			for i, want := range tt.want {
				if !strings.HasPrefix(lines[i], want) {
					t.Errorf("Validate() line %d = %q, want it to start with %q", i, lines[i], want)
				}
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("Validate() = %v, which holds a secret", err)
			}
		})
	}
}

// notSettings are the fields of Config that a user does not set.
var notSettings = []string{"Registry", "Hangup", "inputs", "limits", "leaseTTL"}

// TestSettings holds that each field of Config is one setting, that each setting
// has all that a user needs, and that what is shown of a value sets it.
func TestSettings(t *testing.T) {
	var cfg Config
	fields := reflect.ValueOf(&cfg).Elem()
	for i := range fields.NumField() {
		name := fields.Type().Field(i).Name
		want := 1
		if slices.Contains(notSettings, name) {
			want = 0
		}
		found := 0
		for _, s := range Settings() {
			if reflect.ValueOf(s.field(&cfg)).Pointer() == fields.Field(i).Addr().Pointer() {
				found++
				if strings.ReplaceAll(s.Key, "_", "") != strings.ToLower(name) {
					t.Errorf("field %s has the key %s, want its own name", name, s.Key)
				}
			}
		}
		if found != want {
			t.Errorf("field %s has %d settings, want %d", name, found, want)
		}
	}

	names := make(map[string]string)
	for _, s := range Settings() {
		for _, name := range []string{s.Key, "--" + s.Flag(), s.Env()} {
			if other, taken := names[name]; taken {
				t.Errorf("%s is a name of %s and %s", name, other, s.Key)
			}
			names[name] = s.Key
		}
		if s.Usage == "" || strings.HasSuffix(s.Usage, ".") {
			t.Errorf("%s: usage %q, want a phrase", s.Key, s.Usage)
		}
		if (s.Arg == "") != s.Switch() {
			t.Errorf("%s: Arg = %q, Switch() = %v, want one or the other", s.Key, s.Arg, s.Switch())
		}
		if strings.ToLower(s.Key) != s.Key || !strings.HasPrefix(s.Env(), "SLUICE_") {
			t.Errorf("%s: key or variable %s is not spelled as the others", s.Key, s.Env())
		}

		want, got := DefaultConfig(), Config{}
		shown := s.show(&want)
		if s.Repeatable() {
			continue // TestLoadConfigSources
		}
		if err := s.set(&got, shown); err != nil {
			t.Errorf("%s: set(%v) = %v", s.Key, shown, err)
		}
		if again := s.show(&got); again != shown {
			t.Errorf("%s: set(%v) shows as %v", s.Key, shown, again)
		}
		if err := s.set(&got, []any{"a"}); err == nil {
			t.Errorf("%s: set(list) = nil, want an error", s.Key)
		}
		if err := s.set(&got, nil); err == nil {
			t.Errorf("%s: set(nil) = nil, want an error", s.Key)
		}
	}
}

// writeFile writes a configuration file and returns its path.
func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sluice.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadConfigPrecedence(t *testing.T) {
	path := writeFile(t, `
data_dir: from-file
max_body: 2097152
commit_timeout: 2s
reflection: false
log_level: warn
`)
	cfg, origins, err := LoadConfig(Inputs{
		Environ: []string{
			"SLUICE_CONFIG=" + path, "SLUICE_DATA_DIR=from-env", "SLUICE_COMMIT_TIMEOUT=1500ms", "SLUICE_PPROF=1",
			// What Kubernetes sets in every pod beside a service called sluice.
			"SLUICE_PORT=tcp://10.0.0.1:9090", "SLUICE_PORT_9090_TCP=tcp://10.0.0.1:9090", "SLUICE_SERVICE_HOST=10.0.0.1",
			"SLUICE_MAX_BODY=", "PATH=/bin",
		},
		Flags: map[string]string{"data_dir": "from-flag"},
	})
	if err != nil {
		t.Fatalf("LoadConfig() = %v", err)
	}
	want := DefaultConfig()
	want.DataDir = "from-flag"
	want.MaxBody = 2 << 20
	want.CommitTimeout = 1500 * time.Millisecond
	want.Reflection = false
	want.PProf = true
	want.LogLevel = slog.LevelWarn
	if diff := cmp.Diff(want, cfg, cmpopts.IgnoreUnexported(Config{})); diff != "" {
		t.Errorf("LoadConfig() differs (-want +got):\n%s", diff)
	}
	file := "file " + path
	wantOrigins := Origins{
		"data_dir": "--data-dir", "max_body": file, "commit_timeout": "SLUICE_COMMIT_TIMEOUT",
		"reflection": file, "log_level": file, "pprof": "SLUICE_PPROF",
	}
	if diff := cmp.Diff(wantOrigins, origins); diff != "" {
		t.Errorf("LoadConfig() origins differ (-want +got):\n%s", diff)
	}
}

func TestLoadConfigSources(t *testing.T) {
	want := []Source{
		{Name: "acme", Path: "/hook-7f3a", Tokens: []string{"env:HOME", "plain=a"}, SignatureToken: "file:/etc/hostname"},
		{Name: "other", Path: "/b"},
	}
	const compact = "name=acme,path=/hook-7f3a,token=env:HOME,token=plain=a,signature_token=file:/etc/hostname;name=other, path=/b"
	tests := map[string]Inputs{
		"flag": {Flags: map[string]string{"sources": compact}},
		"env":  {Environ: []string{"SLUICE_SOURCES=" + compact}},
		"file": {File: writeFile(t, `
sources:
  - name: acme
    path: /hook-7f3a
    tokens: ["env:HOME", plain=a]
    signature_token: file:/etc/hostname
  - {name: other, path: /b}
`)},
	}
	for name, in := range tests {
		t.Run(name, func(t *testing.T) {
			got, _, err := LoadConfig(in)
			if err != nil {
				t.Fatalf("LoadConfig() = %v", err)
			}
			if diff := cmp.Diff(want, got.Sources); diff != "" {
				t.Errorf("Sources differ (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLoadConfigProblems(t *testing.T) {
	const secret = "hunter2"
	tests := map[string]struct {
		in   Inputs
		want []string // each a part of the error
	}{
		"everything at once": {
			in: Inputs{
				File:    writeFile(t, "data_dri: x\nmax_body: 1Mb5\nlog: {level: debug}\nnats_url:\n"),
				Environ: []string{"SLUICE_GRPC_ADR=:1", "SLUICE_DRAIN_TIMEOUT=15"},
				Flags:   map[string]string{"log_format": "xml", "on_full": "maybe"},
			},
			want: []string{
				"unknown key data_dri, did you mean data_dir?",
				"unknown key log",
				"unknown variable SLUICE_GRPC_ADR, did you mean SLUICE_GRPC_ADDR?",
				`max_body (from file `, `"1Mb5" is no size`,
				"nats_url (from file ", "has no value",
				`drain_timeout (from SLUICE_DRAIN_TIMEOUT): "15" is no duration`,
				`log_format: "xml"`, `on_full: "maybe"`,
			},
		},
		"no file":         {in: Inputs{File: "/nowhere.yaml"}, want: []string{"--config: open /nowhere.yaml"}},
		"no file, by env": {in: Inputs{Environ: []string{"SLUICE_CONFIG=/nowhere.yaml"}}, want: []string{"SLUICE_CONFIG: open"}},
		"not YAML":        {in: Inputs{File: writeFile(t, "a: [")}, want: []string{"yaml: line 1"}},
		"key twice":       {in: Inputs{File: writeFile(t, "pprof: true\npprof: false\n")}, want: []string{`"pprof" already defined`}},
		"source, unknown key": {
			in:   Inputs{File: writeFile(t, "sources: [{name: a, pth: /"+secret+", tokns: ["+secret+"]}]")},
			want: []string{"source 1: unknown key pth, did you mean path?", "source 1: unknown key tokns, did you mean tokens?"},
		},
		"source, a number": {
			in:   Inputs{File: writeFile(t, "sources: [{name: a, tokens: [12345]}]")},
			want: []string{"source 1: tokens is not text"},
		},
		"source, no list": {in: Inputs{File: writeFile(t, "sources: 3")}, want: []string{"want a list of sources"}},
		"source, compact": {
			in:   Inputs{Environ: []string{"SLUICE_SOURCES=name=a,token=x," + secret}},
			want: []string{"sources (from SLUICE_SOURCES): source 1: part 3 is not key=value"},
		},
		"source, compact plural": {in: Inputs{Flags: map[string]string{"sources": "name=a,tokens=" + secret}}, want: []string{"did you mean token?"}},
		"source, compact twice":  {in: Inputs{Flags: map[string]string{"sources": "name=a,name=b"}}, want: []string{"name is given twice"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, _, err := LoadConfig(tt.in)
			if err == nil {
				t.Fatal("LoadConfig() = nil, want an error")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("LoadConfig() = %v\nwant it to hold %q", err, want)
				}
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("LoadConfig() = %v\nwhich holds a secret", err)
			}
		})
	}
}

// TestWriteYAML holds that what is written hides every secret, and that what is
// no secret loads to the same configuration.
func TestWriteYAML(t *testing.T) {
	cfg := DefaultConfig()
	cfg.NATSURL = "nats://user:hunter2@host:4222,tls://hunter2@other:4222"
	cfg.Sources = []Source{
		{Name: "acme", Path: "/hunter2", Tokens: []string{"hunter2", "env:ACME_TOKEN", "sha256:hunter2"}, SignatureToken: "hunter2"},
		{Name: "other", Path: "/"},
	}
	var out bytes.Buffer
	if err := cfg.WriteYAML(&out, Origins{"nats_url": "SLUICE_NATS_URL"}); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "hunter2") {
		t.Errorf("WriteYAML() wrote a secret:\n%s", out.String())
	}
	for _, want := range []string{
		"# SLUICE_NATS_URL\n", "data_dir: data", "# default\n", "nats://" + masked + "@host:4222", "env:ACME_TOKEN",
		"sha256:" + masked, "path: /" + masked, "path: /\n", "max_body: 1MiB", "max_age: 168h ", "reflection: true",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("WriteYAML() wrote no %q:\n%s", want, out.String())
		}
	}

	cfg.NATSURL = ""
	cfg.Sources = []Source{{Name: "acme", Path: "/", Tokens: []string{"env:HOME"}}}
	out.Reset()
	if err := cfg.WriteYAML(&out, nil); err != nil {
		t.Fatal(err)
	}
	again, _, err := LoadConfig(Inputs{File: writeFile(t, out.String())})
	if err != nil {
		t.Fatalf("LoadConfig() of what was written = %v\n%s", err, out.String())
	}
	if diff := cmp.Diff(cfg, again, cmpopts.IgnoreUnexported(Config{})); diff != "" {
		t.Errorf("what was written loads as something else (-want +got):\n%s", diff)
	}
}

func TestSize(t *testing.T) {
	tests := map[string]struct {
		want Size
		show string // "" is no size
	}{
		"0":                   {0, "0"},
		"1000":                {1000, "1000"},
		"1B":                  {1, "1"},
		"1 MiB":               {1 << 20, "1MiB"},
		"1mib":                {1 << 20, "1MiB"},
		"1048576":             {1 << 20, "1MiB"},
		"1536KiB":             {1536 << 10, "1536KiB"},
		"2GB":                 {2e9, "1953125KiB"},
		"3kB":                 {3000, "3000"},
		"8TiB":                {8 << 40, "8TiB"},
		"9223372036854775807": {1<<63 - 1, "9223372036854775807"},
		"9223372036854775808": {},
		"9000000TiB":          {},
		"-1":                  {},
		"1.5MiB":              {},
		"MiB":                 {},
		"":                    {},
		"1MiBMiB":             {},
	}
	for text, tt := range tests {
		var got Size
		err := got.UnmarshalText([]byte(text))
		if (err == nil) != (tt.show != "") || got != tt.want {
			t.Errorf("UnmarshalText(%q) = %d, %v, want %d", text, got, err, tt.want)
		}
		if err == nil && got.String() != tt.show {
			t.Errorf("Size(%d).String() = %s, want %s", got, got, tt.show)
		}
	}
}
