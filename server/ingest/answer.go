package ingest

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sluicegate/sluice/server/apierror"
)

// An answer is what the vendor is told. It never holds anything of a request.
type answer struct {
	status int
	body   []byte
	length []string // the header: that of body
}

var (
	answerOK          = newAnswer(http.StatusOK, 0, "ok")
	answerBad         = newAnswer(http.StatusBadRequest, 40001, "bad request")
	answerNotAccepted = newAnswer(http.StatusUnauthorized, 40101, "callback not accepted")
	answerMethod      = newAnswer(http.StatusMethodNotAllowed, 40501, "method not allowed, use POST")
	answerTooLarge    = newAnswer(http.StatusRequestEntityTooLarge, 41301, "body too large")
	answerMedia       = newAnswer(http.StatusUnsupportedMediaType, 41501, "body is not plain JSON")
	answerInternal    = newAnswer(http.StatusInternalServerError, 50001, "internal error")
	answerBusy        = newAnswer(http.StatusServiceUnavailable, 50301, "cannot be stored now, try again")
)

// The headers of answers. Nobody changes them.
var (
	headerJSON  = []string{contentTypeJSON}
	headerRetry = []string{"1"}
	headerAllow = []string{http.MethodPost}
)

func newAnswer(status, errcode int, errmsg string) *answer {
	body := fmt.Appendf(nil, `{"errcode":%d,"errmsg":%q}`, errcode, errmsg)
	return &answer{status: status, body: body, length: []string{strconv.Itoa(len(body))}}
}

func (a *answer) write(w http.ResponseWriter) {
	h := w.Header()
	h["Content-Type"], h["Content-Length"] = headerJSON, a.length
	switch a.status {
	case http.StatusMethodNotAllowed:
		h["Allow"] = headerAllow
	case http.StatusServiceUnavailable:
		h["Retry-After"] = headerRetry
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body) // who does not read the answer tries again
}

// answerFor returns what the vendor is told of err.
func answerFor(err error) *answer {
	if errors.Is(err, errMediaType) {
		return answerMedia
	}
	switch status.Code(apierror.Status(err)) {
	case codes.Unauthenticated:
		return answerNotAccepted
	case codes.ResourceExhausted:
		return answerTooLarge
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return answerBusy
	case codes.InvalidArgument:
		return answerBad
	default:
		return answerInternal
	}
}
