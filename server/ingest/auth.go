package ingest

import (
	"crypto/sha256"
	"time"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
)

// A rejection is why a callback was turned away: a metric label.
type rejection string

const (
	accepted         rejection = ""
	rejectedPath     rejection = "path"              // no source's path matches
	rejectedToken    rejection = "token"             // a token is not the source's
	rejectedSigned   rejection = "signature"         // wrong or out of date, and nothing else vouches
	rejectedMissing  rejection = "no_credential"     // nothing vouches
	rejectedSize     rejection = "too_large"         // over Config.MaxBody
	rejectedMethod   rejection = "method"            // not a POST
	rejectedEncoding rejection = "content_encoding"  // compressed
	rejectedMedia    rejection = "media_type"        // neither called JSON nor JSON
	rejectedRead     rejection = "body_not_readable" // cut off or too slow
	rejectedBusy     rejection = "busy"              // too many requests or large bodies under way
)

// admit decides whether a callback that reached the source may enter, by the
// table in the package comment. The reading is that of the signature.
func (r *route) admit(req *sluicev1.ReceiveCallbackRequest, tokens []string, now time.Time) (reading, rejection) {
	presented, right := 0, 1
	check := func(token string) {
		if token == "" {
			return
		}
		presented++
		hash, known := sha256.Sum256([]byte(token)), 0
		for i := range r.Tokens {
			known |= r.Tokens[i].equals(&hash)
		}
		right &= known
	}
	for _, token := range tokens {
		check(token)
	}
	check(req.GetToken())

	signed := noReading
	if req.GetMsgSignature() != "" && !r.SignatureToken.IsZero() {
		signed = verify(r.SignatureToken.plain, req.GetMsgSignature(), req.GetTimestamp(), req.GetNonce(), now)
	}

	byToken := presented > 0 && len(r.Tokens) > 0
	switch {
	case byToken && right == 0:
		return signed, rejectedToken
	case byToken, r.secretPath(), signed.valid(), r.Open():
		return signed, accepted
	case signed != noReading:
		return signed, rejectedSigned
	}
	return signed, rejectedMissing
}
