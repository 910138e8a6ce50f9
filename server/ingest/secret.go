package ingest

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
)

// A Secret is a credential that callbacks are checked against. The zero Secret
// is no credential: nothing equals it. It never shows its value, whatever
// prints it.
type Secret struct {
	hash  [sha256.Size]byte
	plain string // "" when only the hash is known
	set   bool
}

// masked is what a Secret prints as.
const masked = "[secret]"

// ParseSecret returns the credential that s stands for: the environment
// variable NAME for "env:NAME", the content of a file, without the line break
// at its end, for "file:PATH", what hashes to HEX for "sha256:HEX", and s
// itself otherwise. Variables and files are read now.
//
// Its errors say what to set and never hold the credential.
func ParseSecret(s string) (Secret, error) {
	scheme, rest, _ := strings.Cut(s, ":")
	switch scheme {
	case "env":
		v := os.Getenv(rest)
		if v == "" {
			return Secret{}, fmt.Errorf("environment variable %q is not set or empty: set it to the token", rest)
		}
		return newSecret(v), nil
	case "file":
		b, err := os.ReadFile(rest) //nolint:gosec // the operator says which file
		if err != nil {
			return Secret{}, fmt.Errorf("read token: %w", err)
		}
		v := strings.TrimRight(string(b), "\r\n")
		if v == "" {
			return Secret{}, fmt.Errorf("file %q is empty: write the token into it", rest)
		}
		return newSecret(v), nil
	case "sha256":
		b, err := hex.DecodeString(rest)
		if err != nil || len(b) != sha256.Size {
			return Secret{}, fmt.Errorf("sha256: want %d hex digits, the SHA-256 of the token", hex.EncodedLen(sha256.Size))
		}
		return Secret{hash: [sha256.Size]byte(b), set: true}, nil
	}
	if s == "" {
		return Secret{}, errors.New("the token is empty: set it, or leave it out")
	}
	return newSecret(s), nil
}

func newSecret(plain string) Secret {
	return Secret{hash: sha256.Sum256([]byte(plain)), plain: plain, set: true}
}

// IsZero reports whether s is no credential.
func (s Secret) IsZero() bool { return !s.set }

// equals returns 1 when what hashes to hash is the credential, else 0, in
// constant time.
func (s *Secret) equals(hash *[sha256.Size]byte) int {
	if !s.set {
		return 0
	}
	return subtle.ConstantTimeCompare(s.hash[:], hash[:])
}

// String returns a mask.
func (s Secret) String() string {
	if !s.set {
		return ""
	}
	return masked
}

// Format implements fmt.Formatter, so that no verb reaches the fields.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
