package fcemu

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/getkin/kin-openapi/openapi2"
	"github.com/getkin/kin-openapi/openapi2conv"
	"github.com/getkin/kin-openapi/openapi3"
	"gopkg.in/yaml.v3"
)

// spec holds requests against the description of the API.
type spec struct{ doc *openapi3.T }

// overlay is what Firecracker 1.8 to 1.16 have that the description of 1.0.0 has
// not, as far as the driver uses it: docs/entropy.md of Firecracker, by which the
// body has an optional rate limiter.
const overlay = `{
  "paths": {"/entropy": {"put": {
    "operationId": "putEntropyDevice",
    "parameters": [{"name": "body", "in": "body", "required": true, "schema": {"$ref": "#/definitions/EntropyDevice"}}],
    "responses": {"204": {"description": "Entropy device created"}}
  }}},
  "definitions": {"EntropyDevice": {"type": "object", "properties": {"rate_limiter": {"$ref": "#/definitions/RateLimiter"}}}}
}`

// loadSpec reads the description of the API, a file of OpenAPI 2 in YAML.
func loadSpec(file string) (*spec, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var tree any
	if err := yaml.Unmarshal(data, &tree); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	var more map[string]map[string]any
	if err := json.Unmarshal([]byte(overlay), &more); err != nil {
		return nil, err
	}
	top, _ := stringKeys(tree).(map[string]any)
	for part, entries := range more {
		into, _ := top[part].(map[string]any)
		if into == nil {
			return nil, fmt.Errorf("%s has no %s", file, part)
		}
		for name, entry := range entries {
			into[name] = entry
		}
	}
	if data, err = json.Marshal(top); err != nil {
		return nil, err
	}
	var old openapi2.T
	if err := json.Unmarshal(data, &old); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	doc, err := openapi2conv.ToV3(&old)
	if err != nil {
		return nil, fmt.Errorf("convert %s: %w", file, err)
	}
	refuseUnknown(doc)
	return &spec{doc}, nil
}

// stringKeys makes numbers that are keys, as those of responses, strings.
func stringKeys(v any) any {
	switch v := v.(type) {
	case map[any]any:
		m := map[string]any{}
		for key, value := range v {
			m[fmt.Sprint(key)] = stringKeys(value)
		}
		return m
	case map[string]any:
		for key, value := range v {
			v[key] = stringKeys(value)
		}
	case []any:
		for i, value := range v {
			v[i] = stringKeys(value)
		}
	}
	return v
}

// refuseUnknown has objects with fields have no others, as Firecracker has it. The
// contents of the metadata service are an object of any fields.
func refuseUnknown(doc *openapi3.T) {
	none := false
	for _, schema := range doc.Components.Schemas {
		if len(schema.Value.Properties) > 0 {
			schema.Value.AdditionalProperties = openapi3.AdditionalProperties{Has: &none}
		}
	}
}

var errPath = errors.New("invalid request method and/or path")

// check holds a request against the description and returns its body, nil without
// one, and the last part of paths that have an id.
func (s *spec) check(method, at string, body []byte) (fields map[string]any, id string, err error) {
	item := s.doc.Paths.Value(at)
	if item == nil {
		for _, pattern := range s.doc.Paths.Keys() {
			if strings.HasSuffix(pattern, "}") && path.Dir(pattern) == path.Dir(at) && path.Base(at) != "/" {
				item, id = s.doc.Paths.Value(pattern), path.Base(at)
			}
		}
	}
	if item == nil || item.GetOperation(method) == nil {
		return nil, "", fmt.Errorf("%w: %s %s", errPath, method, at)
	}
	if strings.ContainsFunc(id, func(r rune) bool { return !isAlphanumeric(r) && r != '_' }) {
		return nil, "", fmt.Errorf("invalid id %q: letters, digits and _", id)
	}
	wanted := item.GetOperation(method).RequestBody
	switch {
	case wanted == nil && len(body) > 0:
		return nil, "", fmt.Errorf("%s request cannot have a body", method)
	case wanted == nil:
		return nil, id, nil
	case len(body) == 0:
		return nil, "", fmt.Errorf("empty %s request", method)
	}
	if err := json.Unmarshal(body, &fields); err != nil {
		return nil, "", fmt.Errorf("an error occurred when deserializing the json body of a request: %w", err)
	}
	content := wanted.Value.Content.Get("application/json")
	if content == nil {
		return nil, "", fmt.Errorf("the description has no JSON for %s %s", method, at)
	}
	if err := content.Schema.Value.VisitJSON(fields, openapi3.VisitAsRequest(), openapi3.DisableSchemaErrorDetails()); err != nil {
		return nil, "", fmt.Errorf("an error occurred when deserializing the json body of a request: %w", err)
	}
	return fields, id, nil
}
