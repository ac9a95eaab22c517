// Publishes events: node publish.mjs URL SUBJECT FIRST COUNT
// Each is {"id": "e<n>", "n": <n>}, for n from FIRST.
import { connect } from "@nats-io/transport-node";

const [url, subject, first, count] = process.argv.slice(2);
const nc = await connect({ servers: url });
for (let n = Number(first); n < Number(first) + Number(count); n++) {
  nc.publish(subject, JSON.stringify({ id: `e${n}`, n }));
}
await nc.drain();
