// Sends numbers to partition 0 of a topic, at a rate, until its input ends; says so for each that is acknowledged.
//
//	go run . BOOTSTRAP TOPIC RATE
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	rate, err := strconv.Atoi(os.Args[3])
	if err != nil {
		log.Fatal(err)
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(os.Args[1], ",")...),
		kgo.DefaultProduceTopic(os.Args[2]),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		// As those of the other clients: a leader that stands still is not waited for.
		kgo.ProduceRequestTimeout(2*time.Second),
		kgo.RequestTimeoutOverhead(time.Second),
		kgo.RecordDeliveryTimeout(2*time.Minute),
		// As soon as the others; by default it looks for a new leader every five seconds.
		kgo.MetadataMinAge(100*time.Millisecond),
	)
	if err != nil {
		log.Fatal(err)
	}
	over := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(over)
	}()
	told := func(record *kgo.Record, err error) {
		if err != nil {
			fmt.Println("refused", err)
		} else {
			fmt.Println("acknowledged")
		}
	}
	begin := time.Now()
	for sent := 0; ; sent++ {
		next := begin.Add(time.Duration(sent) * time.Second / time.Duration(rate))
		select {
		case <-over:
			if err := client.Flush(context.Background()); err != nil {
				log.Fatal(err)
			}
			fmt.Println("sent", sent)
			return
		case <-time.After(time.Until(next)):
			client.Produce(context.Background(), &kgo.Record{Value: []byte(strconv.Itoa(sent))}, told)
		}
	}
}
