// Reads so many records of partition 0 of a topic, and prints each as a line of JSON.
//
//	go run ./reader BOOTSTRAP TOPIC ISOLATION COUNT START
//
// ISOLATION is committed or uncommitted. START is an offset, or time:MS for the first record that is at least as late.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

type line struct {
	Offset    int64      `json:"offset"`
	Timestamp int64      `json:"timestamp"`
	Key       *string    `json:"key"`
	Value     string     `json:"value"`
	Headers   [][]string `json:"headers"`
}

func number(text string) int64 {
	parsed, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		log.Fatal(err)
	}
	return parsed
}

func main() {
	bootstrap, topic, isolation, count, start := os.Args[1], os.Args[2], os.Args[3], number(os.Args[4]), os.Args[5]
	offset := kgo.NewOffset()
	if ms, isTime := strings.CutPrefix(start, "time:"); isTime {
		offset = offset.AfterMilli(number(ms))
	} else {
		offset = offset.At(number(start))
	}
	level := kgo.ReadUncommitted()
	if isolation == "committed" {
		level = kgo.ReadCommitted()
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(bootstrap),
		kgo.FetchIsolationLevel(level),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: offset}}),
		kgo.FetchMaxPartitionBytes(200_000),
	)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	over, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	for count > 0 {
		fetches := client.PollFetches(over)
		if err := fetches.Err0(); err != nil {
			log.Fatal(err)
		}
		fetches.EachError(func(topic string, partition int32, err error) { log.Fatal(topic, partition, err) })
		fetches.EachRecord(func(record *kgo.Record) {
			if count--; count < 0 {
				return
			}
			told := line{record.Offset, record.Timestamp.UnixMilli(), nil, string(record.Value), nil}
			if record.Key != nil {
				key := string(record.Key)
				told.Key = &key
			}
			for _, header := range record.Headers {
				told.Headers = append(told.Headers, []string{header.Key, string(header.Value)})
			}
			text, err := json.Marshal(told)
			if err != nil {
				log.Fatal(err)
			}
			fmt.Println(string(text))
		})
	}
}
