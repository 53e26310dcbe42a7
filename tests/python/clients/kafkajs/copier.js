// Copies a topic in transactions, as the one member of a group, until its input ends. Every fifth one is aborted. Says how
// many records each transaction that was committed has copied.
//
//     node copier.js BOOTSTRAP SOURCE TARGET GROUP TRANSACTIONAL_ID
"use strict";

const { Kafka, logLevel } = require("kafkajs");

const [bootstrap, source, target, group, transactionalId] = process.argv.slice(2);

const kafka = new Kafka({
  brokers: bootstrap.split(","),
  clientId: "copier",
  logLevel: logLevel.NOTHING,
  retry: { initialRetryTime: 50, maxRetryTime: 500, retries: 60 },
});

async function main() {
  const producer = kafka.producer({ transactionalId, maxInFlightRequests: 1, idempotent: true });
  // A broker that was killed waits for the member that it knew, as long as these say.
  const timeouts = { sessionTimeout: 6000, rebalanceTimeout: 6000, heartbeatInterval: 1000 };
  const consumer = kafka.consumer({ groupId: group, readUncommitted: false, ...timeouts });
  // A consumer that has given up stands still while its process lives on.
  consumer.on(consumer.events.CRASH, ({ payload: { error, restart } }) => {
    console.log("crashed", error.message, restart ? "and begins anew" : "and gives up");
    if (!restart) process.exit(1);
  });
  await producer.connect();
  await consumer.connect();
  await consumer.subscribe({ topics: [source], fromBeginning: true });
  let count = 0;
  await consumer.run({
    autoCommit: false,
    eachBatchAutoResolve: false,
    eachBatch: async ({ batch, heartbeat, resolveOffset, isRunning, isStale }) => {
      for (let at = 0; at < batch.messages.length && isRunning() && !isStale(); at += 20) {
        const taken = batch.messages.slice(at, at + 20);
        const messages = taken.map(({ value }) => ({ value, partition: batch.partition }));
        const last = taken[taken.length - 1].offset;
        const next = (BigInt(last) + 1n).toString();
        for (let committed = false; !committed; ) {
          const transaction = await producer.transaction();
          count += 1;
          try {
            await transaction.send({ topic: target, messages });
            if (count % 5 === 0) {
              await transaction.abort();
              console.log("aborted", taken.length);
              continue;
            }
            const partitions = [{ partition: batch.partition, offset: next }];
            await transaction.sendOffsets({
              consumerGroupId: group,
              topics: [{ topic: source, partitions }],
            });
            await transaction.commit();
            committed = true;
          } catch (error) {
            if (transaction.isActive()) await transaction.abort();
            throw error;
          }
        }
        resolveOffset(last);
        await heartbeat();
        console.log("committed", taken.length);
      }
    },
  });
  process.stdin.resume();
  process.stdin.on("end", async () => {
    await consumer.disconnect();
    await producer.disconnect();
    process.exit(0);
  });
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
