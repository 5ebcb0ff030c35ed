package js

import (
	"context"
	"crypto"
	"crypto/rand"
	_ "crypto/sha1" // functions compute the digests that others ask for
	_ "crypto/sha256"
	_ "crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"strings"

	"github.com/google/uuid"
	"github.com/nlnwa/whatwg-url/url"
)

// maxURL is the longest URL that is parsed, in bytes, as nothing stops the
// parser.
const maxURL = 64 << 10

// digests are the digests that ask computes, by their names in Web Crypto.
var digests = map[string]crypto.Hash{
	"SHA-1": crypto.SHA1, "SHA-256": crypto.SHA256, "SHA-384": crypto.SHA384, "SHA-512": crypto.SHA512,
}

// ask answers those questions of the prelude that have Go do what it does best.
func ask(ctx context.Context, what string, input []byte) []byte {
	if digest, ok := digests[what]; ok {
		return sum(ctx, digest, input)
	}
	switch what {
	case "random": // as many bytes as the input has
		random := make([]byte, len(input))
		_, _ = rand.Read(random) // never fails
		return random
	case "uuid":
		return []byte(uuid.NewString())
	case "atob":
		return decode64(string(input))
	case "btoa":
		return encode64(string(input))
	case "url": // the URL, and its base or null
		return parse(input)
	case "url.set": // the URL, and the name and new value of one part
		return change(input)
	}
	return nil
}

// sum returns the digest of input. It looks at ctx again and again, because
// the input may be long and nothing else stops a host function.
func sum(ctx context.Context, digest crypto.Hash, input []byte) []byte {
	const step = 1 << 20
	h := digest.New()
	for len(input) > step {
		_, _ = h.Write(input[:step]) // never fails
		input = input[step:]
		if ctx.Err() != nil {
			return nil
		}
	}
	_, _ = h.Write(input)
	return h.Sum(nil)
}

// encode64 returns the base64 text of bytes that text has as characters.
func encode64(text string) []byte {
	bytes := make([]byte, 0, len(text))
	for _, r := range text {
		if r > 0xff {
			return nil
		}
		bytes = append(bytes, byte(r))
	}
	return base64.StdEncoding.AppendEncode([]byte{}, bytes)
}

// decode64 returns, as characters in UTF-8, the bytes that text stands for. It
// forgives what browsers forgive: white space, and padding that is missing.
func decode64(text string) []byte {
	text = strings.NewReplacer(" ", "", "\t", "", "\n", "", "\f", "", "\r", "").Replace(text)
	if len(text)%4 == 0 {
		text = strings.TrimSuffix(strings.TrimSuffix(text, "="), "=")
	}
	bytes, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil {
		return nil
	}
	characters := make([]rune, len(bytes))
	for i, b := range bytes {
		characters[i] = rune(b)
	}
	return []byte(string(characters))
}

// parts is a URL as its class in the prelude keeps it.
type parts struct {
	Href     string `json:"href"`
	Protocol string `json:"protocol"`
	Username string `json:"username"`
	Password string `json:"password"`
	Host     string `json:"host"`
	Hostname string `json:"hostname"`
	Port     string `json:"port"`
	Pathname string `json:"pathname"`
	Search   string `json:"search"`
	Hash     string `json:"hash"`
}

// taken returns u taken apart, as JSON.
func taken(u *url.Url) []byte {
	text, err := json.Marshal(parts{
		Href: u.Href(false), Protocol: u.Protocol(), Username: u.Username(), Password: u.Password(), Host: u.Host(),
		Hostname: u.Hostname(), Port: u.Port(), Pathname: u.Pathname(), Search: u.Search(), Hash: u.Hash(),
	})
	if err != nil {
		return nil
	}
	return text
}

func parse(input []byte) []byte {
	var args [2]*string
	if len(input) > maxURL || json.Unmarshal(input, &args) != nil || args[0] == nil {
		return nil
	}
	u, err := resolve(*args[0], args[1])
	if err != nil {
		return nil
	}
	return taken(u)
}

// resolve parses a URL that may be relative to a base.
func resolve(text string, base *string) (*url.Url, error) {
	if base == nil {
		return url.Parse(text)
	}
	return url.ParseRef(*base, text)
}

func change(input []byte) []byte {
	var args [3]string
	if len(input) > maxURL || json.Unmarshal(input, &args) != nil {
		return nil
	}
	u, err := url.Parse(args[0])
	if err != nil {
		return nil
	}
	set, ok := map[string]func(string){
		"protocol": u.SetProtocol, "username": u.SetUsername, "password": u.SetPassword, "host": u.SetHost,
		"hostname": u.SetHostname, "port": u.SetPort, "pathname": u.SetPathname, "search": u.SetSearch, "hash": u.SetHash,
	}[args[1]]
	if !ok {
		return nil
	}
	set(args[2])
	return taken(u)
}
