// Package show is how events look: to a program, as JSON; to a person, as a line
// each, or one in full. What an event says was written by strangers, so nothing
// of it reaches a person's terminal but through Visible.
package show

import (
	"bytes"
	"encoding/json"
	"io"
	"strconv"
	"strings"
	"unicode"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// JSON writes m as protojson, on one line.
func JSON(out io.Writer, m proto.Message) error {
	line, err := compactJSON(m)
	if err != nil {
		return err
	}
	_, err = out.Write(append(line, '\n'))
	return err
}

// compactJSON returns m as protojson without spaces, which protojson by itself
// puts in at random.
func compactJSON(m proto.Message) ([]byte, error) {
	b, err := protojson.Marshal(m)
	if err != nil {
		return nil, err
	}
	var compact bytes.Buffer
	err = json.Compact(&compact, b)
	return compact.Bytes(), err
}

// zeroWidthJoiner is a control character that emoji are made with.
const zeroWidthJoiner = '\u200d'

// Visible returns s on one line and without power over a terminal. What does
// not print, escapes and direction overrides among it, becomes a Go escape, such
// as \n, \x1b or \u202e.
func Visible(s string) string {
	s = strings.ToValidUTF8(s, string(unicode.ReplacementChar))
	if !strings.ContainsFunc(s, invisible) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if invisible(r) {
			quoted := strconv.QuoteRuneToASCII(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func invisible(r rune) bool {
	return !unicode.IsGraphic(r) && r != zeroWidthJoiner
}
