package nex_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"nex"
)

const text = "SUABCDEFGHIJ"

func TestSecretDoesNotPrint(t *testing.T) {
	s := nex.Secret(text)
	access := nex.NATSAccess{URL: "nats://h", Seed: s}
	request := nex.DeployRequest{HostServices: &access}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%10s", "%d", "%t", "%U", "%!"} {
		for _, v := range []any{s, &s, []nex.Secret{s}, map[string]nex.Secret{"k": s}, access, &access, *request.HostServices} {
			got := fmt.Sprintf(verb, v)
			if strings.Contains(got, text) || strings.Contains(strings.ToUpper(got), fmt.Sprintf("%X", text)) {
				t.Errorf("%s of %T prints %s", verb, v, got)
			}
		}
	}
	if got := fmt.Sprint(s) + s.String(); got != "[redacted][redacted]" {
		t.Errorf("got %s", got)
	}
	if err := fmt.Errorf("connect as %s: %w", s, nex.Errorf(nex.Internal, "%v", access)); strings.Contains(err.Error(), text) {
		t.Errorf("an error says %v", err)
	}
}

func TestSecretIsNotLogged(t *testing.T) {
	var out bytes.Buffer
	access := nex.NATSAccess{Seed: text}
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("m", "seed", access.Seed, slog.Group("g", "seed", access.Seed))
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("m", "access", access)
	if strings.Contains(out.String(), text) || strings.Count(out.String(), "[redacted]") != 5 {
		t.Errorf("logged %s", out.String())
	}
}

func TestSecretTravelsInJSON(t *testing.T) {
	access := nex.NATSAccess{URL: "u", JWT: "j", Seed: text}
	wantJSON(t, marshal(t, access), []byte(`{"nats_url":"u","nats_user_jwt":"j","nats_user_seed":"`+text+`"}`))
	if again := parse[nex.NATSAccess](t, marshal(t, access)); again != access || string(again.Seed) != text {
		t.Error("the seed did not come back")
	}
}
