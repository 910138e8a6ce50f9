package callback

import (
	"fmt"
	"testing"
)

// TestNumbers is which numbers nothing is lost of as doubles; the others are
// their text.
func TestNumbers(t *testing.T) {
	for _, number := range []string{
		"0", "-0", "1", "-1.5", "0.1", "1e2", "1E-7", "123456789012345", "9007199254740992", "-9007199254740992", "9007199254740994",
		"1e22", "10000000000000000000000", "0.30000000000000004", "5e-324", "1.7976931348623157e-300", "1.0",
	} {
		wantEvent(t, number, one(t, `{"x":`+number+`}`), fmt.Sprintf(`{"other":{"fields":{"x":%s}}}`, number))
	}
	for _, number := range []string{
		"9007199254740993", "9223372036854775808", "1000000000000000000000000000000", "1e30", "1e23", "-1.5e300", "12345678901234567890",
		"0.1000000000000000055511151231257827", "0.30000000000000001", "1e400", "1e-400", "0.1e31",
	} {
		wantEvent(t, number, one(t, `{"x":`+number+`}`), fmt.Sprintf(`{"other":{"fields":{"x":%q}}}`, number))
	}
}
