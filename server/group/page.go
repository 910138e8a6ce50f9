package group

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
)

const (
	defaultPageSize = 100
	maxPageSize     = 1000
)

// pageSize returns how many items a page has.
func pageSize(n int32) (int, error) {
	switch {
	case n < 0 || n > maxPageSize:
		return 0, apierror.InvalidField("page_size", "must be from 0 to %d", maxPageSize)
	case n == 0:
		return defaultPageSize, nil
	}
	return int(n), nil
}

// A binding ties a page token to what was asked.
type binding [8]byte

func bindingOf(what ...any) binding {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q", what))
	return binding(sum[:8])
}

// token returns the token of the page that begins after last.
func (b binding) token(last string) string {
	return base64.RawURLEncoding.EncodeToString(append(b[:], last...))
}

// last returns what token was made of; "" for the first page.
func (b binding) last(token string) (string, error) {
	if token == "" {
		return "", nil
	}
	data, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(data) <= len(b) || binding(data[:len(b)]) != b {
		return "", &apierror.Error{
			Code:    codes.InvalidArgument,
			Reason:  sluicev1.ErrorReason_ERROR_REASON_INVALID_PAGE_TOKEN,
			Message: "page_token: is not one of this request",
		}
	}
	return string(data[len(b):]), nil
}
