package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"time"

	gateway "github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
	"github.com/sluicegate/sluice/server/callback"
	"github.com/sluicegate/sluice/server/failpoint"
)

// An answer is what the vendor is told. It never holds anything of a request.
type answer struct {
	status int
	body   []byte
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

func newAnswer(status, errcode int, errmsg string) *answer {
	return &answer{status: status, body: fmt.Appendf(nil, `{"errcode":%d,"errmsg":%q}`, errcode, errmsg)}
}

func (a *answer) write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", contentTypeJSON)
	h.Set("Content-Length", strconv.Itoa(len(a.body)))
	switch a.status {
	case http.StatusMethodNotAllowed:
		h.Set("Allow", http.MethodPost)
	case http.StatusServiceUnavailable:
		h.Set("Retry-After", "1")
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

// A handler is the callback listener: it looks at what HTTP says of a request,
// reads the body, and has grpc-gateway make the call.
type handler struct {
	service *Service
	gateway *gateway.ServeMux
}

// NewHandler returns the handler of the callback listener. Whatever it is
// asked, it answers in the vendor's shape.
func NewHandler(s *Service) (http.Handler, error) {
	mux := gateway.NewServeMux(
		gateway.WithMarshalerOption(gateway.MIMEWildcard, wire{}),
		gateway.WithErrorHandler(func(
			_ context.Context, _ *gateway.ServeMux, _ gateway.Marshaler, w http.ResponseWriter, _ *http.Request, err error,
		) {
			answerFor(err).write(w)
		}),
		gateway.WithRoutingErrorHandler(func(
			_ context.Context, _ *gateway.ServeMux, _ gateway.Marshaler, w http.ResponseWriter, _ *http.Request, _ int,
		) {
			answerBad.write(w)
		}),
		gateway.WithDisablePathLengthFallback(),
		gateway.WithDisableHTTPMethodOverride(),
		gateway.WithWriteContentLength(),
	)
	if err := sluicev1.RegisterCallbackServiceHandlerServer(context.Background(), mux, s); err != nil {
		return nil, fmt.Errorf("register the callback service: %w", err)
	}
	return &handler{service: s, gateway: mux}, nil
}

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer h.recover(w)
	if r.Method != http.MethodPost {
		h.refuse(w, rejectedMethod, answerMethod)
		return
	}
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		h.refuse(w, rejectedEncoding, answerMedia)
		return
	}
	body, err := h.read(w, r)
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		hangUp(w)
		h.refuse(w, rejectedSize, answerTooLarge)
	case err != nil:
		hangUp(w)
		h.refuse(w, rejectedRead, answerBad)
	default:
		_ = failpoint.Hit("after-read")
		h.gateway.ServeHTTP(failpoint.Response("mid-response", w), call(r, body))
	}
}

// hangUp has the connection closed after the answer, without waiting for what
// is left of the body.
func hangUp(w http.ResponseWriter) {
	w.Header().Set("Connection", "close")
	_ = http.NewResponseController(w).SetReadDeadline(time.Now()) // where that can be done
}

func (h *handler) refuse(w http.ResponseWriter, why rejection, a *answer) {
	h.service.metrics.rejected.WithLabelValues(string(why)).Inc()
	a.write(w)
}

// read returns the body, or *http.MaxBytesError when it is over the limit.
func (h *handler) read(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	limit := int64(h.service.maxBody)
	if r.ContentLength > limit {
		return nil, &http.MaxBytesError{Limit: limit}
	}
	if r.ContentLength < 0 {
		return io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	}
	body := make([]byte, r.ContentLength)
	_, err := io.ReadFull(r.Body, body)
	return body, err
}

// recover answers for a panic. The log gets its type and where it was: its
// value may hold something of the callback.
func (h *handler) recover(w http.ResponseWriter) {
	v := recover()
	if v == nil {
		return
	}
	h.service.logger.Error("panic while receiving a callback", "type", fmt.Sprintf("%T", v), "at", panicSite())
	answerInternal.write(w)
}

// panicSite returns the function and line that panicked, for a deferred
// function to ask.
func panicSite() string {
	pcs := make([]uintptr, 32)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs)])
	panicked := false
	for {
		frame, more := frames.Next()
		inRuntime := strings.HasPrefix(frame.Function, "runtime.")
		if panicked && !inRuntime {
			return fmt.Sprintf("%s:%d", frame.Function, frame.Line)
		}
		panicked = panicked || frame.Function == "runtime.gopanic"
		if !more {
			return "unknown"
		}
	}
}

// decodedKey is the context key of a request whose body the gateway has
// decoded.
type decodedKey struct{}

// contentTypeKey is the context key of a request's Content-Type, where that is
// more than contentTypeJSON.
type contentTypeKey struct{}

const contentTypeJSON = "application/json"

// maxContentType is how many bytes of a Content-Type are kept.
const maxContentType = 128

// isJSON reports whether a Content-Type says JSON, or nothing.
func isJSON(contentType string) bool {
	media, _, _ := strings.Cut(contentType, ";")
	media = strings.ToLower(strings.TrimSpace(media))
	return media == "" || media == contentTypeJSON || media == "text/json" || strings.HasSuffix(media, "+json")
}

// call returns the request that the gateway gets in the place of r. It has the
// cleaned path, the query parameters that the call has a field for, and the
// body. It has no headers: nothing in them is for the service, and the gateway
// would take some for its own (Grpc-Timeout, for one) or fail on them.
func call(r *http.Request, body []byte) *http.Request {
	ctx := context.WithValue(r.Context(), decodedKey{}, true)
	if said := r.Header.Get("Content-Type"); said != "" && said != contentTypeJSON {
		said = strings.ToValidUTF8(said[:min(len(said), maxContentType)], "\uFFFD")
		ctx = context.WithValue(ctx, contentTypeKey{}, said)
	}
	c := r.WithContext(ctx)
	c.URL = &url.URL{Path: cleanPath(strings.ToValidUTF8(r.URL.Path, "\uFFFD"))}
	c.Header, c.Host, c.RemoteAddr = nil, "", ""
	c.Body = &decodedOnce{body: body}
	if r.URL.RawQuery != "" {
		c.Form = parameters(r.URL.RawQuery)
	}
	return c
}

// parameters returns the query parameters that a call has fields for. Of one
// that is there twice the first counts; but a second token would go unchecked,
// so that the gateway is left to refuse it.
func parameters(rawQuery string) url.Values {
	all, _ := url.ParseQuery(rawQuery) // what cannot be parsed is not for us
	form := make(url.Values, 4)
	for _, name := range []string{"msg_signature", "timestamp", "nonce"} {
		if values := all[name]; len(values) > 0 {
			form[name] = values[:1]
		}
	}
	if tokens := all["token"]; len(tokens) > 0 {
		form["token"] = tokens
	}
	return form
}

// A decodedOnce is a request's body on its way through the gateway to the
// decoder, which takes it as it is.
type decodedOnce struct{ body []byte }

// Read implements io.Reader for nobody.
func (*decodedOnce) Read([]byte) (int, error) { return 0, io.EOF }

// Close implements io.Closer.
func (*decodedOnce) Close() error { return nil }

// Decode implements gateway.Decoder.
func (d *decodedOnce) Decode(v any) error {
	to, ok := v.(**sluicev1.Callback)
	if !ok {
		return fmt.Errorf("decode a callback into %T", v)
	}
	*to = callback.Decode(d.body)
	return nil
}

// wire is the gateway's Marshaler: a callback in the vendor's JSON comes in,
// success goes out.
type wire struct{}

// ContentType implements gateway.Marshaler.
func (wire) ContentType(any) string { return contentTypeJSON }

// Marshal implements gateway.Marshaler. What goes out is a response, and a
// response is success.
func (wire) Marshal(any) ([]byte, error) { return answerOK.body, nil }

// Unmarshal implements gateway.Marshaler.
func (wire) Unmarshal(data []byte, v any) error { return (&decodedOnce{data}).Decode(v) }

// NewDecoder implements gateway.Marshaler.
func (wire) NewDecoder(r io.Reader) gateway.Decoder {
	if d, ok := r.(*decodedOnce); ok {
		return d
	}
	return gateway.DecoderFunc(func(any) error { return errors.New("the body was not read") })
}

// NewEncoder implements gateway.Marshaler.
func (wire) NewEncoder(w io.Writer) gateway.Encoder {
	return gateway.EncoderFunc(func(any) error {
		_, err := w.Write(answerOK.body)
		return err
	})
}
