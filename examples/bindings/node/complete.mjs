// Node: opens a model, streams a greedy completion, prints which experts worked.
import { Context, MixtralError, Session } from './mixtral.mjs';

// A line for each layer: which percentage of its tokens' choices fell on each expert.
function printExperts(counts) {
  console.log('\n\nshare of each expert (%)');
  counts.forEach((row, layer) => {
    const total = row.reduce((sum, count) => sum + count, 0n);
    const shares = Array.from(row, (count) => String((100n * count + total / 2n) / total).padStart(4));
    console.log(`layer ${layer}:${shares.join('')}`);
  });
}

async function run(path) {
  const context = new Context(path);
  try {
    const session = new Session(context, { temperature: 0 }); // greedy
    try {
      session.feed(context.tokenize('RETURN VALUE\n       On success,'));
      await session.generate(48, (_token, text) => void process.stdout.write(text));
      printExperts(context.routingCounts());
    } finally {
      session.close();
    }
  } finally {
    context.close();
  }
}

try {
  await run(process.argv[2] ?? 'examples/models/tiny');
} catch (error) {
  if (!(error instanceof MixtralError)) throw error;
  console.error(error.message);
  process.exitCode = 1;
}
