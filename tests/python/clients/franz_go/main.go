// Copies a topic in transactions, as a member of a group, until its input ends. Every fifth one is aborted. Says how many
// records each transaction that was committed has copied.
//
//	go run . BOOTSTRAP SOURCE TARGET GROUP TRANSACTIONAL_ID
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	bootstrap, source, target, group, id := os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5]
	session, err := kgo.NewGroupTransactSession(
		kgo.SeedBrokers(strings.Split(bootstrap, ",")...),
		kgo.TransactionalID(id),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeTopics(source),
		kgo.ConsumerGroup(group),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.RequireStableFetchOffsets(),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.MetadataMinAge(100*time.Millisecond),
		kgo.RetryTimeout(time.Minute),
	)
	if err != nil {
		log.Fatal(err)
	}
	over, stop := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	for count := 1; ; count++ {
		fetches := session.PollRecords(over, 20)
		if over.Err() != nil {
			break
		}
		if fetches.NumRecords() == 0 {
			continue
		}
		if err := session.Begin(); err != nil {
			log.Fatal("begin: ", err)
		}
		copied := 0
		promise := kgo.AbortingFirstErrPromise(session.Client())
		fetches.EachRecord(func(record *kgo.Record) {
			copied++
			another := &kgo.Record{Topic: target, Partition: record.Partition, Value: record.Value}
			session.Produce(context.Background(), another, promise.Promise())
		})
		fits := promise.Err() == nil && count%5 != 0
		committed, err := session.End(context.Background(), kgo.TransactionEndTry(fits))
		switch {
		case err != nil:
			// What has become of it is not known here; a new session of the same id finds out.
			log.Fatal("end: ", err)
		case committed:
			fmt.Println("committed", copied)
		default:
			fmt.Println("aborted", copied)
		}
	}
	session.Close()
}
