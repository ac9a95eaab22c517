// Serves a subject and asks it: node request.mjs URL SUBJECT COUNT
// Prints each answer that arrives, on a line of its own.
import { connect, createInbox } from "@nats-io/transport-node";

const [url, subject, count] = process.argv.slice(2);
const service = await connect({ servers: url });
service.subscribe(subject, {
  callback: (_, msg) => msg.respond(`answer to ${msg.string()}`),
});
await service.flush();

const client = await connect({ servers: url });
const inbox = createInbox();
const answers = [];
let next = () => {};
client.subscribe(inbox, {
  callback: (_, msg) => {
    answers.push(msg.string());
    next();
  },
});
for (let n = 0; n < Number(count); n++) {
  const heard = new Promise((resolve) => { next = resolve; });
  client.publish(subject, `question ${n}`, { reply: inbox });
  await heard;
  await service.flush(); // whoever else answers has had a round trip more
  await client.flush();
}
for (const answer of answers) console.log(answer);
await client.close();
await service.close();
