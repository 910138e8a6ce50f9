package callback

// The anomalies: the ways in which a body departs from what the vendor
// documents, as they stand in Event.anomalies.
const (
	// BOM is a byte order mark before the JSON. It is skipped.
	BOM = "BOM"

	// DottedName is a nested field written flat, for example "artwork.width".
	// It is put into its nest.
	DottedName = "DOTTED_NAME"

	// DuplicateName is a name that stands twice in one object, of which the last
	// wins, or a field under two of its names, or in two places, with different
	// values. The other value is then in unmapped.
	DuplicateName = "DUPLICATE_NAME"

	// InvalidUTF8 is text with bytes that are not UTF-8, or with half of a
	// surrogate pair. U+FFFD stands in their place.
	InvalidUTF8 = "INVALID_UTF8"

	// ItemForList is a single value where a list belongs. It is a list of one.
	ItemForList = "ITEM_FOR_LIST"

	// NestedToken is a field named token where no credential belongs, or with an
	// object or array for its value. The strings and numbers in it are cut out
	// like the credential, but not compared with anything. It is also a
	// credential inside another name or value, which Scrub has cut out.
	NestedToken = "NESTED_TOKEN"

	// NULInID is an identifier with a NUL character. It is unset; unmapped has
	// the value.
	NULInID = "NUL_IN_ID"

	// NumberForBool is 0 or 1 where a boolean belongs.
	NumberForBool = "NUMBER_FOR_BOOL"

	// NumberForString is a number where a string belongs. Its digits are kept.
	NumberForString = "NUMBER_FOR_STRING"

	// NumberOutOfRange is a number that its field cannot hold. The field is
	// unset; unmapped has the value.
	NumberOutOfRange = "NUMBER_OUT_OF_RANGE"

	// PayloadWithoutType is a message with a payload but no usable type. The
	// payload is in unmapped.
	PayloadWithoutType = "PAYLOAD_WITHOUT_TYPE"

	// StringForBool is "true", "false", "1" or "0" where a boolean belongs.
	StringForBool = "STRING_FOR_BOOL"

	// StringForNumber is a number in quotes where a number belongs. Times are
	// exempt: the vendor writes them both ways.
	StringForNumber = "STRING_FOR_NUMBER"

	// TabInName is white space around a name. It is trimmed.
	TabInName = "TAB_IN_NAME"

	// TopicWithoutRoom is a room's name in a message that names no room. It is
	// in unmapped.
	TopicWithoutRoom = "TOPIC_WITHOUT_ROOM"

	// UnknownEnum is a number that the vendor's enumeration does not list. It
	// is kept.
	UnknownEnum = "UNKNOWN_ENUM"

	// UnknownField is a field that no mapping knows. It is in unmapped.
	UnknownField = "UNKNOWN_FIELD"

	// UnmappedTruncated is more unknown values than Sluice converts. The rest
	// is in raw only.
	UnmappedTruncated = "UNMAPPED_TRUNCATED"

	// ValueAsText is an object or array that is too deep or too wide to
	// convert. It is a string of its JSON text.
	ValueAsText = "VALUE_AS_TEXT"

	// WrongType is a value that its field cannot be made from. The field is
	// unset; unmapped has the value.
	WrongType = "WRONG_TYPE"
)

// Anomalies returns every value that Decode puts into Event.anomalies, sorted.
func Anomalies() []string {
	return []string{
		BOM, DottedName, DuplicateName, InvalidUTF8, ItemForList, NestedToken, NULInID, NumberForBool,
		NumberForString, NumberOutOfRange, PayloadWithoutType, StringForBool, StringForNumber, TabInName,
		TopicWithoutRoom, UnknownEnum, UnknownField, UnmappedTruncated, ValueAsText, WrongType,
	}
}

// The reasons for which a body is not JSON, as they stand in
// Callback.malformed.
const (
	// Empty is a body without a value: nothing, or white space only.
	Empty = "EMPTY"

	// Syntax is text that JSON's grammar does not allow, or that ends early.
	Syntax = "SYNTAX"

	// TooDeep is nesting of more than 64 levels.
	TooDeep = "TOO_DEEP"

	// TooLarge is more than 1 GiB.
	TooLarge = "TOO_LARGE"

	// TrailingData is something after the JSON value.
	TrailingData = "TRAILING_DATA"
)

// MalformedReasons returns every value of Callback.malformed but "", sorted.
func MalformedReasons() []string {
	return []string{Empty, Syntax, TooDeep, TooLarge, TrailingData}
}
