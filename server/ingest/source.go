package ingest

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// A Source is a tenant or hosted organisation: the path that its callbacks are
// posted below, and what they are checked against.
type Source struct {
	// Name labels the source's events: 1 to 32 of a-z, 0-9 and "-".
	Name string

	// Path is what the URL configured with the vendor ends in; unset means "/".
	// Any other path is taken for a secret: whoever knows it may post.
	Path string

	// Tokens are the credentials that may stand in a body or in the query
	// parameter "token". Several are valid at once, for rotation.
	Tokens []Secret

	// SignatureToken is what enterprise callbacks are signed with. Zero means
	// that signatures count for nothing.
	SignatureToken Secret
}

// DefaultSource returns the source that a gateway without configuration has:
// everything below "/", open to everybody.
func DefaultSource() Source { return Source{Name: "default", Path: "/"} }

// Open reports whether the source accepts callbacks from anybody.
func (s *Source) Open() bool {
	return !s.secretPath() && len(s.Tokens) == 0 && s.SignatureToken.IsZero()
}

// secretPath reports whether the path is a credential.
func (s *Source) secretPath() bool { return s.Path != "" && s.Path != "/" }

var sourceName = regexp.MustCompile(`^[a-z0-9-]{1,32}$`)

// Validate reports every problem with sources, not just the first. Its errors
// hold neither paths nor tokens: both are credentials. No source at all is
// valid: New takes it for DefaultSource.
func Validate(sources []Source) error {
	var errs []error
	names, paths := make(map[string]bool), make(map[string]string)
	secrets := searched(sources)
	for i := range sources {
		s := &sources[i]
		label := fmt.Sprintf("source %d (%q)", i+1, s.Name)
		problem := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf(label+": "+format, args...))
		}
		if !sourceName.MatchString(s.Name) {
			problem("name: want 1 to 32 of a-z, 0-9 and -")
		}
		if names[s.Name] {
			problem("name: another source has it, too")
		}
		names[s.Name] = true

		p := cmp.Or(s.Path, "/")
		switch {
		case p[0] != '/':
			problem(`path: must start with "/"`)
		case path.Clean(p) != p:
			problem(`path: must have no "..", no "." and no empty segment, and no "/" at its end`)
		case len(p) > maxPath/2:
			problem("path: must have at most %d bytes", maxPath/2)
		case strings.ContainsAny(p, "?#% \t\r\n"):
			problem(`path: must be a plain path, without "?", "#", "%%" and spaces`)
		}
		if other, taken := paths[p]; taken {
			problem("path: source %q has the same", other)
		}
		paths[p] = s.Name

		for j := range s.Tokens {
			if s.Tokens[j].IsZero() {
				problem("tokens: number %d is empty", j+1)
			}
		}
		if slices.ContainsFunc(secrets, func(secret string) bool { return strings.Contains(s.Name, secret) }) {
			problem("name: a token stands in it, and it is stored with every event")
		}
		if s.SignatureToken.set && s.SignatureToken.plain == "" {
			problem("signature_token: a hash cannot verify signatures, which are made with the token itself: give it as env:NAME or file:PATH")
		}
	}
	return errors.Join(errs...)
}

// minSearched is the length in bytes from which a credential is searched for
// in what is about to be stored. The vendor's have 24 or 32; one such as
// "string", which the vendor's own example carries, occurs in any text, and
// cutting it out everywhere would destroy content.
const minSearched = 8

// maxPath is the longest request path in bytes that a source can match.
const maxPath = 2048

// A route is a Source at work. It does not change.
type route struct {
	Source
	plain []string // every source's credentials that are known and long enough: what is searched for
}

// routes are all sources, those with longer paths first.
type routes []*route

func newRoutes(sources []Source) (routes, error) {
	if err := Validate(sources); err != nil {
		return nil, err
	}
	if len(sources) == 0 {
		sources = []Source{DefaultSource()}
	}
	plain := searched(sources)
	rs := make(routes, 0, len(sources))
	for _, s := range sources {
		r := &route{Source: s, plain: plain}
		r.Path = cmp.Or(r.Path, "/")
		rs = append(rs, r)
	}
	slices.SortFunc(rs, func(a, b *route) int { return cmp.Compare(len(b.Path), len(a.Path)) })
	return rs, nil
}

// searched returns the credentials of sources that must not be stored, in
// whichever source's callback they come.
func searched(sources []Source) []string {
	var plain []string
	for i := range sources {
		for _, secret := range append(slices.Clone(sources[i].Tokens), sources[i].SignatureToken) {
			if len(secret.plain) >= minSearched && !slices.Contains(plain, secret.plain) {
				plain = append(plain, secret.plain)
			}
		}
	}
	return plain
}

// plain returns what searched did.
func (rs routes) plain() []string { return rs[0].plain }

// match returns the route with the longest path that p, as cleanPath returned
// it, is at or below, and the rest of p; nil when there is none.
func (rs routes) match(p string) (*route, string) {
	if len(p) > maxPath {
		return nil, ""
	}
	for _, r := range rs {
		if r.Path == "/" {
			return r, p
		}
		rest, ok := strings.CutPrefix(p, r.Path)
		switch {
		case !ok:
		case rest == "":
			return r, "/"
		case rest[0] == '/':
			return r, rest
		}
	}
	return nil, ""
}

// cleanPath returns p with one slash at its beginning, none at its end and none
// doubled. It leaves dots alone: they mean nothing here.
func cleanPath(p string) string {
	if p == "/" {
		return p
	}
	if p != "" && !strings.HasSuffix(p, "/") && !strings.Contains(p, "//") {
		if p[0] != '/' {
			p = "/" + p
		}
		return p
	}
	var b strings.Builder
	for segment := range strings.SplitSeq(p, "/") {
		if segment != "" {
			b.WriteByte('/')
			b.WriteString(segment)
		}
	}
	if b.Len() == 0 {
		return "/"
	}
	return b.String()
}
