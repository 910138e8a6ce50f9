package ingest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseSecret(t *testing.T) {
	const plain = "5f0c1e9a7b3d2f4e6a8c0b1d"
	sum := sha256.Sum256([]byte(plain))
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return "file:" + path
	}
	t.Setenv("SLUICE_TEST_TOKEN", plain)
	t.Setenv("SLUICE_TEST_EMPTY", "")

	for _, s := range []string{
		plain, "env:SLUICE_TEST_TOKEN", file("token", plain+"\n"), file("bare", plain), "sha256:" + hex.EncodeToString(sum[:]),
		"sha256:" + strings.ToUpper(hex.EncodeToString(sum[:])),
	} {
		got, err := ParseSecret(s)
		if err != nil {
			t.Errorf("ParseSecret(%q) = %v", s, err)
			continue
		}
		wrong := sha256.Sum256([]byte(plain + "\n"))
		if got.equals(&sum) != 1 || got.equals(&wrong) != 0 {
			t.Errorf("ParseSecret(%q) is not the token", s)
		}
	}
	if got := secret(t, "https://a:b"); got.plain != "https://a:b" {
		t.Errorf("ParseSecret takes %q for something else", "https://a:b")
	}

	for s, want := range map[string]string{
		"":                         "empty",
		"env:SLUICE_TEST_EMPTY":    "SLUICE_TEST_EMPTY",
		"env:SLUICE_TEST_MISSING":  "SLUICE_TEST_MISSING",
		"env:":                     "environment variable",
		file("empty", "\n"):        "is empty",
		"file:/nonexistent/token":  "/nonexistent/token",
		"sha256:" + plain:          "64 hex digits",
		"sha256:" + plain + "zzzz": "64 hex digits",
	} {
		_, err := ParseSecret(s)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseSecret(%q) = %v, want it to mention %q", s, err, want)
		} else if strings.Contains(err.Error(), plain) {
			t.Errorf("ParseSecret(%q) = %v, shows the token", s, err)
		}
	}
	if (&Secret{}).equals(new([32]byte)) == 1 {
		t.Error("the zero Secret equals something")
	}
}

func TestSecretNeverShows(t *testing.T) {
	const plain = "5f0c1e9a7b3d2f4e6a8c0b1d"
	s := Source{Name: "acme", Path: "/", Tokens: []Secret{secret(t, plain)}, SignatureToken: secret(t, plain)}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X"} {
		fmt.Fprintf(&out, verb+verb+"\n", s, s.Tokens[0])
	}
	if err := json.NewEncoder(&out).Encode(s); err != nil {
		t.Fatal(err)
	}
	slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "source", s, "token", s.Tokens[0])
	slog.New(slog.NewTextHandler(&out, nil)).Info("m", "source", s, "token", s.Tokens[0])
	sum := sha256.Sum256([]byte(plain))
	for _, shown := range []string{plain, hex.EncodeToString([]byte(plain)), hex.EncodeToString(sum[:]), fmt.Sprint(sum[0], sum[1])} {
		if strings.Contains(strings.ToLower(out.String()), shown) {
			t.Errorf("%s\nshows %s", out.String(), shown)
		}
	}
	if !strings.Contains(out.String(), masked) {
		t.Errorf("%s\ndoes not say that there is a token", out.String())
	}
}

func TestValidate(t *testing.T) {
	good := func() []Source {
		return []Source{
			{Name: "acme", Path: "/hook-7f3a", Tokens: []Secret{secret(t, token)}, SignatureToken: secret(t, token)},
			{Name: "default"},
		}
	}
	hash := secret(t, "sha256:"+strings.Repeat("0a", 32))
	tests := map[string]struct {
		edit func([]Source)
		want []string
	}{
		"good":                      {edit: func([]Source) {}},
		"hashed token":              {edit: func(s []Source) { s[0].Tokens[0] = hash }},
		"no name":                   {edit: func(s []Source) { s[0].Name = "" }, want: []string{"source 1", "name"}},
		"capital":                   {edit: func(s []Source) { s[0].Name = "Acme" }, want: []string{"name"}},
		"long name":                 {edit: func(s []Source) { s[0].Name = strings.Repeat("a", 33) }, want: []string{"name"}},
		"same name":                 {edit: func(s []Source) { s[1].Name = "acme" }, want: []string{"source 2", "name"}},
		"same path":                 {edit: func(s []Source) { s[0].Path = "/" }, want: []string{"source 2", "path", `"acme"`}},
		"no slash":                  {edit: func(s []Source) { s[0].Path = "hook-7f3a" }, want: []string{"path"}},
		"slash at the end":          {edit: func(s []Source) { s[0].Path = "/hook-7f3a/" }, want: []string{"path"}},
		"dots":                      {edit: func(s []Source) { s[0].Path = "/a/../hook-7f3a" }, want: []string{"path"}},
		"query":                     {edit: func(s []Source) { s[0].Path = "/hook-7f3a?x" }, want: []string{"path"}},
		"escape":                    {edit: func(s []Source) { s[0].Path = "/hook-7f3a%20" }, want: []string{"path"}},
		"long path":                 {edit: func(s []Source) { s[0].Path = "/hook-7f3a" + strings.Repeat("x", maxPath) }, want: []string{"path"}},
		"empty token":               {edit: func(s []Source) { s[0].Tokens = append(s[0].Tokens, Secret{}) }, want: []string{"tokens: number 2"}},
		"telling name":              {edit: func(s []Source) { s[0].Name, s[0].Tokens[0] = "acme-50f1c2", secret(t, "acme-50f1") }, want: []string{"source 1", "a token stands in it"}},
		"name that tells another's": {edit: func(s []Source) { s[1].Name, s[0].Tokens[0] = "acme-50f1c2", secret(t, "acme-50f1") }, want: []string{"source 2", "a token stands in it"}},
		"hash to sign":              {edit: func(s []Source) { s[0].SignatureToken = hash }, want: []string{"signature_token", "env:NAME"}},
		"all at once": {
			edit: func(s []Source) { s[0] = Source{Name: "?", Path: "x", SignatureToken: hash} },
			want: []string{"name", "path", "signature_token"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			sources := good()
			tt.edit(sources)
			err := Validate(sources)
			if len(tt.want) == 0 && err != nil {
				t.Fatalf("Validate() = %v, want nil", err)
			}
			for _, w := range tt.want {
				if err == nil || !strings.Contains(err.Error(), w) {
					t.Errorf("Validate() = %v, want it to mention %q", err, w)
				}
			}
			if err != nil && strings.Contains(err.Error(), "7f3a") {
				t.Errorf("Validate() = %v, shows a path", err)
			}
		})
	}
	if err := Validate(nil); err != nil {
		t.Errorf("Validate(nil) = %v, want nil", err)
	}
}

func TestOpen(t *testing.T) {
	for name, tt := range map[string]struct {
		source Source
		want   bool
	}{
		"default":         {DefaultSource(), true},
		"no path":         {Source{Name: "a"}, true},
		"secret path":     {Source{Name: "a", Path: "/x"}, false},
		"token":           {Source{Name: "a", Path: "/", Tokens: []Secret{secret(t, "x")}}, false},
		"signature token": {Source{Name: "a", SignatureToken: secret(t, "x")}, false},
	} {
		if got := tt.source.Open(); got != tt.want {
			t.Errorf("%s: Open() = %v, want %v", name, got, tt.want)
		}
	}
}

func FuzzCleanPath(f *testing.F) {
	for _, p := range []string{"", "/", "//", "a", "/a/", "/a//b", "/hook-7f3a/message", "/../a", "/\xff"} {
		f.Add(p)
	}
	routes, err := newRoutes([]Source{{Name: "a", Path: "/a"}, {Name: "ab", Path: "/a/b"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, p string) {
		clean := cleanPath(p)
		if !strings.HasPrefix(clean, "/") || strings.Contains(clean, "//") || clean != "/" && strings.HasSuffix(clean, "/") {
			t.Fatalf("cleanPath(%q) = %q", p, clean)
		}
		if again := cleanPath(clean); again != clean {
			t.Fatalf("cleanPath(%q) = %q", clean, again)
		}
		r, rest := routes.match(clean)
		if r == nil {
			if strings.HasPrefix(clean+"/", "/a/") && len(clean) <= maxPath {
				t.Fatalf("match(%q) finds nothing", clean)
			}
			return
		}
		if cleanPath(r.Path+rest) != clean {
			t.Fatalf("match(%q) = %q and %q", clean, r.Path, rest)
		}
	})
}
