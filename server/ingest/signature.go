package ingest

import (
	"crypto/sha1" //nolint:gosec // the vendor's choice
	"crypto/subtle"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A reading is one way of reading the vendor's page on signatures: the SHA-1
// of token, nonce and timestamp, put together "and sorted". All are accepted,
// and which one the vendor means is counted.
type reading string

const (
	noReading        reading = ""                  // there was none, or it counts for nothing here
	concatenated     reading = "concatenated"      // token, nonce, timestamp, one after the other
	sortedCharacters reading = "sorted_characters" // all characters of the three, sorted
	sortedStrings    reading = "sorted_strings"    // the three strings, sorted

	// Those of signatures that prove nothing.
	outOfDate reading = "out_of_date" // made with the token, but not now
	forged    reading = "none"        // not made with the token
)

// valid reports whether a signature read so admits a callback.
func (r reading) valid() bool { return r != noReading && r != outOfDate && r != forged }

const (
	// signatureAge is how far a signature's timestamp may be from now. It does
	// not cover the body, so whoever has seen one can use it that long.
	signatureAge = 5 * time.Minute

	// maxSigned is the longest nonce and timestamp in bytes that are hashed.
	maxSigned = 128
)

// verify returns the reading by which signature is that of token for nonce and
// timestamp, in seconds; outOfDate or forged when it proves nothing.
func verify(token, signature, timestamp, nonce string, now time.Time) reading {
	want, err := hex.DecodeString(signature)
	if err != nil || len(nonce) > maxSigned || len(timestamp) > maxSigned {
		return forged
	}
	match := forged
	check := func(r reading, text []byte) {
		sum := sha1.Sum(text) //nolint:gosec // the vendor's choice
		if subtle.ConstantTimeCompare(sum[:], want) == 1 {
			match = r
		}
	}
	parts := []string{token, nonce, timestamp}
	text := []byte(strings.Join(parts, ""))
	check(concatenated, text)
	slices.Sort(text)
	check(sortedCharacters, text)
	slices.Sort(parts)
	check(sortedStrings, []byte(strings.Join(parts, "")))
	if match == forged {
		return forged
	}
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil || now.Sub(time.Unix(seconds, 0)).Abs() > signatureAge {
		return outOfDate
	}
	return match
}
