package hostsvc

import (
	"context"
	"errors"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"nex"
)

// Codes of the JetStream API that its client has no names for.
const (
	resourcesExceeded     = 10002
	insufficientResources = 10023
	maximumStreams        = 10027
	memoryExceeded        = 10028
	storageExceeded       = 10047
	storeFailed           = 10077 // for whatever reason, which only the text tells
	storeFull             = "maximum bytes exceeded"
)

// failure gives an error its code.
func failure(ctx context.Context, err error) *nex.Error {
	var coded *nex.Error
	switch {
	case errors.As(err, &coded):
		return coded
	case errors.Is(err, context.Canceled):
		return nex.Errorf(nex.Unavailable, "the call was given up")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		if errors.Is(ctx.Err(), context.Canceled) {
			return nex.Errorf(nex.Unavailable, "the call was given up")
		}
		return nex.Errorf(nex.Timeout, "there was no answer in time")
	case errors.Is(err, nats.ErrMaxPayload), isAPI(err, int(jetstream.JSErrCodeStreamMessageExceedsMaximum)):
		return nex.Errorf(nex.TooLarge, "it is larger than NATS takes")
	case isFull(err):
		return nex.Errorf(nex.TooLarge, "the bucket is full")
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrNoStreamResponse):
		return nex.Errorf(nex.Unavailable, "nobody answers: JetStream cannot be reached now")
	case isAPI(err, resourcesExceeded, memoryExceeded, storageExceeded, insufficientResources, maximumStreams):
		return nex.Errorf(nex.Unavailable, "NATS has no place for the bucket")
	}
	return nex.Errorf(nex.Unavailable, "%s", strings.TrimPrefix(err.Error(), "nats: "))
}

// isFull reports whether a bucket has no place for what was to be stored.
func isFull(err error) bool {
	_, text := apiError(err)
	return isAPI(err, storeFailed) && text == storeFull
}

// isGone reports whether the bucket that an open handle is for may be there no
// longer.
func isGone(err error) bool {
	return errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrNoStreamResponse) ||
		errors.Is(err, jetstream.ErrBucketNotFound) || errors.Is(err, nats.ErrConnectionClosed) ||
		isAPI(err, int(jetstream.JSErrCodeStreamNotFound))
}

// isAPI reports whether an error is an answer of JetStream's with one of these
// codes.
func isAPI(err error, codes ...int) bool {
	have, _ := apiError(err)
	for _, code := range codes {
		if have == code {
			return true
		}
	}
	return false
}

// apiError returns JetStream's code and text in an error, which may have come by
// either of the two clients that buckets use.
func apiError(err error) (code int, text string) {
	var answer *jetstream.APIError
	if errors.As(err, &answer) {
		return int(answer.ErrorCode), answer.Description
	}
	var named jetstream.JetStreamError
	if errors.As(err, &named) && named.APIError() != nil {
		return int(named.APIError().ErrorCode), named.APIError().Description
	}
	var old *nats.APIError
	if errors.As(err, &old) {
		return int(old.ErrorCode), old.Description
	}
	var oldNamed nats.JetStreamError
	if errors.As(err, &oldNamed) && oldNamed.APIError() != nil {
		return int(oldNamed.APIError().ErrorCode), oldNamed.APIError().Description
	}
	return 0, ""
}
