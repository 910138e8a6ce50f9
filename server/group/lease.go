package group

import (
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluicegate/sluice/gen/sluice/v1"
	"github.com/sluicegate/sluice/server/apierror"
)

// leaseVersion is the first byte of a lease's binary form: version, 8 bytes of
// the group's incarnation, the number as a varint, 4 bytes of CRC-32 over all
// before.
const leaseVersion = 1

// firstLease is the number of a group's first lease: when it was created, in
// Unix microseconds. So its fences, which are such numbers, are greater than
// those of a deleted group of its name, which handed out less than a delivery a
// microsecond, unless the clock was set back in between. Until the year 2255
// they are less than 2⁵³, which clients may hold as a float.
func firstLease(g *sluicev1.ConsumerGroup) uint64 {
	return uint64(max(1, g.GetCreateTime().AsTime().UnixMicro()))
}

// leaseName returns the name of a lease that clients hold: base64url without
// padding.
func leaseName(incarnation, id uint64) string {
	b := make([]byte, 0, 1+8+binary.MaxVarintLen64+4)
	b = binary.BigEndian.AppendUint64(append(b, leaseVersion), incarnation)
	b = binary.AppendUvarint(b, id)
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	return base64.RawURLEncoding.EncodeToString(b)
}

// parseLease returns what leaseName made name of, and false for anything else.
func parseLease(name string) (incarnation, id uint64, ok bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(name)
	if err != nil || strings.ContainsAny(name, "\r\n") || len(b) < 1+8+1+4 || b[0] != leaseVersion { // base64 passes over ends of lines
		return 0, 0, false
	}
	head, sum := b[:len(b)-4], binary.BigEndian.Uint32(b[len(b)-4:])
	id, n := binary.Uvarint(head[9:])
	if n != len(head)-9 || crc32.ChecksumIEEE(head) != sum {
		return 0, 0, false
	}
	return binary.BigEndian.Uint64(head[1:9]), id, true
}

// lease returns the number of the lease that the i-th settlement of a batch
// names.
func (r *runner) lease(name string, i int) (uint64, error) {
	field := "items[" + strconv.Itoa(i) + "].lease"
	incarnation, id, ok := parseLease(name)
	switch {
	case !ok:
		return 0, &apierror.Error{
			Code:    codes.InvalidArgument,
			Reason:  sluicev1.ErrorReason_ERROR_REASON_INVALID_LEASE,
			Message: field + ": is not a lease",
			Field:   field,
		}
	case incarnation != r.incarnation:
		return 0, &apierror.Error{
			Code:     codes.FailedPrecondition,
			Reason:   sluicev1.ErrorReason_ERROR_REASON_LEASE_OF_ANOTHER_GROUP,
			Message:  field + ": was issued by another group",
			Metadata: map[string]string{"field": field},
		}
	}
	return id, nil
}
