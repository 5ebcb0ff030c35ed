package hostsock

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"nex"
)

// route says what a request asks of the host services, and how the answer looks.
type route struct {
	service, method string
	name            string   // the argument that is the rest of the path; "" for none
	query           []string // the arguments that query parameters give
	answer          form
}

// routes are all there are, by HTTP method and path below /v1/. Those that end
// in a slash take any rest of the path.
var routes = func() map[string]route {
	message := []string{"subject", "timeout_ms"}
	all := map[string]route{
		"GET kv":     {service: "kv", method: "keys", answer: asJSON},
		"GET kv/":    {service: "kv", method: "get", name: "key", answer: asBytes},
		"PUT kv/":    {service: "kv", method: "set", name: "key", answer: asNothing},
		"DELETE kv/": {service: "kv", method: "delete", name: "key", answer: asNothing},

		"GET objects":     {service: "objectstore", method: "list", answer: asJSON},
		"GET objects/":    {service: "objectstore", method: "get", name: "name", answer: asBytes},
		"PUT objects/":    {service: "objectstore", method: "put", name: "name", answer: asJSON},
		"DELETE objects/": {service: "objectstore", method: "delete", name: "name", answer: asNothing},

		"POST messaging/publish":     {service: "messaging", method: "publish", query: message[:1], answer: asNothing},
		"POST messaging/request":     {service: "messaging", method: "request", query: message, answer: asBytes},
		"POST messaging/requestMany": {service: "messaging", method: "requestMany", query: append(message, "count", "quiet_ms"), answer: asReplies},
	}
	for _, method := range []string{"get", "post", "put", "patch", "delete", "head"} {
		all["POST http/"+method] = route{service: "http", method: method, query: []string{"url", "timeout_ms", "redirect"}, answer: asResponse}
	}
	return all
}()

// find returns what a request asks, with its arguments.
func find(r *http.Request) (route, map[string]string, error) {
	to, args, ok := match(r.Method, r.URL.Path)
	if !ok {
		return route{}, nil, nex.Errorf(nex.Unsupported, "host services have no %s %.200q", r.Method, r.URL.Path)
	}
	params, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return route{}, nil, nex.Errorf(nex.Invalid, "query: %v", err)
	}
	for name, values := range params {
		if !slices.Contains(to.query, name) || len(values) > 1 {
			return route{}, nil, nex.Errorf(nex.Invalid, "query parameter %.100q: %s of %s takes %q, each once", name, to.method, to.service, to.query)
		}
		args[name] = values[0]
	}
	for name, value := range args {
		if !utf8.ValidString(value) {
			return route{}, nil, nex.Errorf(nex.Invalid, "%s is not UTF-8", name)
		}
	}
	return to, args, nil
}

func match(method, path string) (to route, args map[string]string, ok bool) {
	path, ok = strings.CutPrefix(path, "/v1/")
	if !ok {
		return route{}, nil, false
	}
	if to, ok = routes[method+" "+path]; ok && to.name == "" {
		return to, map[string]string{}, true
	}
	family, rest, _ := strings.Cut(path, "/")
	to, ok = routes[method+" "+family+"/"]
	return to, map[string]string{to.name: rest}, ok && rest != ""
}
