package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	gateway "github.com/grpc-ecosystem/grpc-gateway/v2/runtime"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/callback"
)

// The gateway makes a call of a request, and an answer of what comes back. The
// handler has done what it does not do as the vendor needs it: paths (its mux
// has its own idea of them), headers (it takes some for its own, Grpc-Timeout
// for one, and fails on others), and bodies (which are in memory already). So
// it gets a request that has nothing but a body and parameters, and its mux is
// not asked for the only route.

// newReceive returns what the gateway does with a POST, for a path parameter
// "path".
func newReceive(s *Service) (receive gateway.HandlerFunc, err error) {
	mux := gateway.NewServeMux(
		gateway.WithMiddlewares(func(route gateway.HandlerFunc) gateway.HandlerFunc {
			receive = route
			return route
		}),
		gateway.WithMarshalerOption(gateway.MIMEWildcard, wire{}),
		gateway.WithErrorHandler(func(
			_ context.Context, _ *gateway.ServeMux, _ gateway.Marshaler, w http.ResponseWriter, _ *http.Request, err error,
		) {
			answerFor(err).write(w)
		}),
		gateway.WithWriteContentLength(),
	)
	if err := sluicev1.RegisterCallbackServiceHandlerServer(context.Background(), mux, s); err != nil {
		return nil, fmt.Errorf("register the callback service: %w", err)
	}
	return receive, nil
}

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

// A call is what the gateway makes one of. It is used again.
type call struct {
	request  http.Request
	path     map[string]string // the path's parameters
	callback sluicev1.Callback
}

func newCall() call { return call{path: make(map[string]string, 1)} }

// of returns the request that the gateway gets in the place of r, whose body is
// b, and the parameters of its path.
func (c *call) of(r *http.Request, path string, b *body) (*http.Request, map[string]string) {
	c.path["path"] = path
	c.request = http.Request{Method: http.MethodPost, Body: b, Form: noParameters, PostForm: noParameters}
	if r.URL.RawQuery != "" {
		c.request.Form = parameters(r.URL.RawQuery)
	}
	if said := r.Header.Get("Content-Type"); said != "" && said != contentTypeJSON {
		said = strings.ToValidUTF8(said[:min(len(said), maxContentType)], "\uFFFD")
		return c.request.WithContext(context.WithValue(context.Background(), contentTypeKey{}, said)), c.path
	}
	return &c.request, c.path
}

// noParameters are those of a request without a query. Nobody changes them.
var noParameters = url.Values{}

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

// Read implements io.Reader for nobody: the decoder takes the body as it is.
func (*body) Read([]byte) (int, error) { return 0, io.EOF }

// Close implements io.Closer.
func (*body) Close() error { return nil }

// Decode implements gateway.Decoder. What there is to decode the service does,
// whichever way a body has come.
func (b *body) Decode(v any) error {
	to, ok := v.(**sluicev1.Callback)
	switch {
	case !ok:
		return fmt.Errorf("decode a callback into %T", v)
	case len(b.data) == 0:
		*to = callback.Decode(nil) // an empty body would be none
	default:
		b.call.callback.Body = b.data
		*to = &b.call.callback
	}
	return nil
}

// wire is the gateway's Marshaler: a body comes in, success goes out.
type wire struct{}

// ContentType implements gateway.Marshaler.
func (wire) ContentType(any) string { return contentTypeJSON }

// Marshal implements gateway.Marshaler. What goes out is a response, and a
// response is success.
func (wire) Marshal(any) ([]byte, error) { return answerOK.body, nil }

// NewDecoder implements gateway.Marshaler.
func (wire) NewDecoder(r io.Reader) gateway.Decoder {
	if b, ok := r.(*body); ok {
		return b
	}
	return gateway.DecoderFunc(func(any) error { return errors.New("the body was not read") })
}

// Unmarshal implements gateway.Marshaler for nobody.
func (wire) Unmarshal([]byte, any) error { return errors.ErrUnsupported }

// NewEncoder implements gateway.Marshaler for nobody.
func (wire) NewEncoder(io.Writer) gateway.Encoder {
	return gateway.EncoderFunc(func(any) error { return errors.ErrUnsupported })
}
