package server

import (
	"context"
	"errors"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/emptypb"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
	"github.com/sluicegate/sluice/server/subscription"
)

// memoryBuffer is the size of the pipe to the gateway, in bytes.
const memoryBuffer = 256 << 10

// dialMemory returns the gateway's connection. It leads to a server of its own,
// because the limits of the public one are for one client, and this connection
// is that of every HTTP client together. It is a connection at all because
// grpc-gateway cannot stream from a service in process.
func dialMemory(listener *bufconn.Listener) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///memory",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(gatewayUnary),
		grpc.WithStreamInterceptor(gatewayStream),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)),
	)
}

// newGateway returns the API as HTTP, by way of conn. What it answers is JSON,
// a stream an object a line, or server-sent events where the client asks for
// them; and an error is a google.rpc.Status.
func newGateway(ctx context.Context, conn *grpc.ClientConn) (http.Handler, error) {
	json := &runtime.JSONPb{}
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, ndjson{json}),
		runtime.WithMarshalerOption(subscription.EventStream, &subscription.SSEMarshaler{}),
		runtime.WithErrorHandler(func(ctx context.Context, mux *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error) {
			err = withReason(err)
			setRetryAfter(w, err)
			runtime.DefaultHTTPErrorHandler(ctx, mux, json, w, r, err)
		}),
		runtime.WithRoutingErrorHandler(noRoute),
		runtime.WithIncomingHeaderMatcher(onlyRequestID),
		runtime.WithOutgoingHeaderMatcher(onlyRequestID),
	)
	if err := errors.Join(
		sluicev1.RegisterEventServiceHandler(ctx, mux, conn),
		sluicev1.RegisterQuarantineServiceHandler(ctx, mux, conn),
		sluicev1.RegisterDriftServiceHandler(ctx, mux, conn),
		sluicev1.RegisterConsumerServiceHandler(ctx, mux, conn),
		sluicev1.RegisterConsumerGroupServiceHandler(ctx, mux, conn),
		sluicev1.RegisterLogServiceHandler(ctx, mux, conn),
	); err != nil {
		return nil, err
	}
	return forGateway(subscription.LastEventID(mux)), nil
}

// ndjson is JSON whose streams are called what they are: a JSON object a line.
type ndjson struct{ *runtime.JSONPb }

// StreamContentType implements runtime.StreamContentType.
func (ndjson) StreamContentType(any) string { return "application/x-ndjson" }

// onlyRequestID lets that header through, in either direction. Nothing else
// that a browser or a proxy sends means anything to a call.
func onlyRequestID(header string) (string, bool) {
	return requestIDHeader, strings.EqualFold(header, requestIDHeader)
}

// noRoute answers a request that is for no call. The gateway itself would say
// 501 for a method that is not allowed.
func noRoute(ctx context.Context, mux *runtime.ServeMux, m runtime.Marshaler, w http.ResponseWriter, r *http.Request, code int) {
	grpcCode := codes.InvalidArgument
	switch code {
	case http.StatusNotFound:
		grpcCode = codes.NotFound
	case http.StatusMethodNotAllowed:
		grpcCode = codes.Unimplemented
	}
	runtime.HTTPError(ctx, mux, m, w, r, &runtime.HTTPStatusError{
		HTTPStatus: code,
		Err:        invalid(grpcCode, "the API has no such call: "+strings.ToLower(http.StatusText(code))),
	})
}

// withReason gives an error of the gateway's own, which cannot make a message
// of a request, the reason that one of a service has.
func withReason(err error) error {
	s := status.Convert(err)
	if s.Code() != codes.InvalidArgument || len(s.Details()) > 0 {
		return err
	}
	// protojson varies the space after its name, so that nobody parses its text.
	text := strings.TrimPrefix(strings.ReplaceAll(s.Message(), "\u00a0", " "), "proto: ")
	return invalid(s.Code(), "the request cannot be read: "+text)
}

// invalid is the error for a request that is none of the API's.
func invalid(code codes.Code, message string) error {
	e := apierror.Error{Code: code, Reason: sluicev1.ErrorReason_ERROR_REASON_INVALID_REQUEST, Message: message}
	return e.GRPCStatus().Err()
}

// setRetryAfter sets the header when the error says that waiting helps.
func setRetryAfter(w http.ResponseWriter, err error) {
	for _, detail := range status.Convert(err).Details() {
		if retry, ok := detail.(*errdetails.RetryInfo); ok {
			seconds := math.Ceil(retry.GetRetryDelay().AsDuration().Seconds())
			w.Header().Set("Retry-After", strconv.Itoa(int(seconds)))
		}
	}
}

// queryKey is the context key of a request's query parameters.
type queryKey struct{}

// forGateway makes of a request what the gateway understands: it compares the
// whole Accept header with a media type, and it passes over parameters that it
// does not know, so that the interceptors below have to look at them.
func forGateway(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.Header.Get("Accept"), subscription.EventStream) {
			r.Header.Set("Accept", subscription.EventStream)
		}
		if query := r.URL.Query(); len(query) > 0 {
			r = r.WithContext(context.WithValue(r.Context(), queryKey{}, query))
		}
		next.ServeHTTP(w, r)
	})
}

// checkQuery reports a query parameter that is no field of the call's request:
// a filter with a typo in its name would select everything.
func checkQuery(ctx context.Context, req any) error {
	query, _ := ctx.Value(queryKey{}).(url.Values)
	msg, ok := req.(proto.Message)
	if !ok {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if !hasField(msg.ProtoReflect().Descriptor(), name) {
			return apierror.InvalidField(name, "there is no such parameter")
		}
	}
	return nil
}

// hasField reports whether path, such as "filter.chat_ids", is a field of msg
// or of a message in it.
func hasField(msg protoreflect.MessageDescriptor, path string) bool {
	for name := range strings.SplitSeq(path, ".") {
		if msg == nil {
			return false
		}
		field := msg.Fields().ByTextName(name)
		if field == nil {
			field = msg.Fields().ByJSONName(name)
		}
		if field == nil {
			return false
		}
		msg = field.Message()
	}
	return true
}

// gatewayUnary checks the query of a call.
func gatewayUnary(ctx context.Context, method string, req, res any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if err := checkQuery(ctx, req); err != nil {
		return err
	}
	return invoke(ctx, method, req, res, conn, opts...)
}

// gatewayStream checks the query of a stream, and lets the gateway see that the
// stream was refused.
func gatewayStream(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	stream, err := open(ctx, desc, conn, method, opts...)
	return gatewayCall{stream}, err
}

type gatewayCall struct{ grpc.ClientStream }

// SendMsg sends the request, if its query is in order.
func (s gatewayCall) SendMsg(req any) error {
	if err := checkQuery(s.Context(), req); err != nil {
		return err
	}
	return s.ClientStream.SendMsg(req)
}

// Header returns, for a stream that ended before it began, the status that it
// ended with: the gateway then answers with that, and not with a stream that
// has an error in it.
func (s gatewayCall) Header() (metadata.MD, error) {
	header, err := s.ClientStream.Header()
	if header == nil && err == nil {
		if err = s.RecvMsg(&emptypb.Empty{}); errors.Is(err, io.EOF) {
			err = nil
		}
	}
	return header, err
}
