// Package sluice holds what belongs to the module as a whole: the description
// of its HTTP API.
package sluice

import _ "embed" // for OpenAPI

// OpenAPI is the HTTP API as an OpenAPI 2.0 document in JSON. It is generated
// from proto/ (see buf.gen.yaml) and embedded here because only a package above
// gen/ can reach it.
//
//go:embed gen/openapi/sluice.swagger.json
var OpenAPI []byte
