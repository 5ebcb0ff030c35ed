package nexhost

import (
	"encoding/json"
	"errors"
	"strconv"
)

// KV is the workload's key-value bucket. Its zero value is ready to use.
type KV struct{}

// Get returns the value of a key. If there is none the code is "not_found".
func (KV) Get(key string) ([]byte, error) {
	m, err := Call("kv", "get", Message{Args: map[string]string{"key": key}})
	return m.Payload, err
}

// Set gives a key a value and returns the revision of the bucket that this
// made.
func (KV) Set(key string, value []byte) (revision uint64, err error) {
	m, err := Call("kv", "set", Message{Args: map[string]string{"key": key}, Payload: value})
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(m.Args["revision"], 10, 64)
}

// Delete removes a key, if there is one.
func (KV) Delete(key string) error {
	_, err := Call("kv", "delete", Message{Args: map[string]string{"key": key}})
	return err
}

// Keys returns all keys.
func (KV) Keys() ([]string, error) {
	var keys []string
	err := callJSON("kv", "keys", Message{}, &keys)
	return keys, err
}

// ObjectStore is the workload's bucket of objects, which may be larger than
// values. Its zero value is ready to use.
type ObjectStore struct{}

// Object describes an object.
type Object struct {
	Name    string `json:"name"`
	Size    uint64 `json:"size"`
	ModTime string `json:"mtime"` // RFC 3339
	Digest  string `json:"digest"`
	Bucket  string `json:"bucket"`
	NUID    string `json:"nuid"`
	Chunks  uint32 `json:"chunks"`
	Options struct {
		ChunkSize uint32 `json:"max_chunk_size"`
	} `json:"options"`
}

// Get returns an object. If there is none the code is "not_found".
func (ObjectStore) Get(name string) ([]byte, error) {
	m, err := Call("objectstore", "get", Message{Args: map[string]string{"name": name}})
	return m.Payload, err
}

// Put stores an object, in place of an earlier one of that name.
func (ObjectStore) Put(name string, data []byte) (Object, error) {
	var o Object
	err := callJSON("objectstore", "put", Message{Args: map[string]string{"name": name}, Payload: data}, &o)
	return o, err
}

// Delete removes an object. If there is none the code is "not_found".
func (ObjectStore) Delete(name string) error {
	_, err := Call("objectstore", "delete", Message{Args: map[string]string{"name": name}})
	return err
}

// List describes all objects.
func (ObjectStore) List() ([]Object, error) {
	var all []Object
	err := callJSON("objectstore", "list", Message{}, &all)
	return all, err
}

// callJSON asks for an answer whose payload is JSON.
func callJSON(service, method string, m Message, to any) error {
	m, err := Call(service, method, m)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(m.Payload, to); err != nil {
		return errors.New("answer of " + service + " " + method + ": " + err.Error())
	}
	return nil
}
