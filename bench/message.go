package main

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
)

const (
	// okAnswer is what the vendor is told once an event is on disk.
	okAnswer = `{"errcode":0,"errmsg":"ok"}`

	// defaultChats is how many conversations the load spreads over unless told
	// otherwise; maxChats is the most.
	defaultChats = 1000
	maxChats     = 1_000_000

	// body is a text in a group chat, in the shape the vendor sends most. Its
	// message id and chat id are overwritten in each request.
	body = `{"data":{"messageId":"` + blankMessage + `","chatId":"` + blankChat + `",` +
		`"avatar":"https://wx.qlogo.cn/mmhead/AAAAAAAAAAAAAAAA/0","roomTopic":"客户服务一群","roomId":"R:10696050000000001",` +
		`"contactName":"客户甲","contactId":"7881300000000001","payload":{"text":"@客服小王 ` + phrase + `",` +
		`"pureText":"` + phrase + `","mention":["1688850000000001"]},"type":7,"timestamp":1763365331110,"token":"0a0a0a0a0a0a0a0a0a0a0a01","contactType":1,` +
		`"coworker":false,"botId":"60aa00000000000000000b01","botWxid":"1688850000000001","botWeixin":"ZhangSan","source":0,` +
		`"isSelf":false,"mentionSelf":true,"externalUserId":"wmAAAAAAAAAAAAAAAAAAAAAAAAAAAAA1",` +
		`"roomWecomChatId":"wrAAAAAAAAAAAAAAAAAAAAAAAAAAAAA1"}}`

	phrase       = "您好，昨天下单的那批货今天能发出吗？仓库说还差两箱"        // 3 bytes a character
	blankMessage = "mmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmm" // 32 hex digits
	blankChat    = "cccccccccccccccccccccccc"         // 24 hex digits
)

// A request is one HTTP request as bytes. Each call of next makes another
// callback of it, in place. It is for one goroutine.
type request struct {
	bytes   []byte
	message []byte // the message id within bytes
	chat    []byte // the chat id within bytes
	chats   uint64 // how many chats it goes through
	writer  uint64 // the first half of its message ids: no other request has it
	count   uint64 // callbacks made: the second half
}

func newRequest(host string, chats int) *request {
	b := fmt.Appendf(nil, "POST /message HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		host, len(body), body)
	within := func(blank string) []byte {
		at := bytes.Index(b, []byte(blank))
		return b[at : at+len(blank)]
	}
	return &request{
		bytes: b, message: within(blankMessage), chat: within(blankChat),
		chats:  uint64(chats), //nolint:gosec // positive
		writer: rand.Uint64(), //nolint:gosec // an id, not a secret
	}
}

// next turns r into a callback with a message id of its own, in another chat
// than the one before.
func (r *request) next() {
	r.count++
	var id [16]byte
	binary.BigEndian.PutUint64(id[:8], r.writer)
	binary.BigEndian.PutUint64(id[8:], r.count)
	hex.Encode(r.message, id[:])
	const stride = 617 // a prime that does not divide the number of chats, so that it comes round to each
	putChatID(r.chat, (r.writer%r.chats+r.count*stride)%r.chats)
}

// putChatID writes the vendor's id of the n-th chat.
func putChatID(to []byte, n uint64) {
	var id [12]byte
	binary.BigEndian.PutUint64(id[4:], n)
	hex.Encode(to, id[:])
}

func chatID(n uint64) string {
	var id [len(blankChat)]byte
	putChatID(id[:], n)
	return string(id[:])
}
