// Java: opens a model, streams a greedy completion, prints which experts worked.
import java.util.Arrays;

public final class Complete {
  private Complete() {}

  // A line for each layer: which percentage of its tokens' choices fell on each expert.
  private static void printExperts(long[][] counts) {
    System.out.print("\n\nshare of each expert (%)\n");
    for (int layer = 0; layer < counts.length; ++layer) {
      long total = Arrays.stream(counts[layer]).sum();
      System.out.printf("layer %d:", layer);
      for (long count : counts[layer]) {
        System.out.printf("%4d", (100 * count + total / 2) / total);
      }
      System.out.print("\n");
    }
  }

  public static void main(String[] args) {
    String path = args.length > 0 ? args[0] : "examples/models/tiny";
    try (Mixtral.Context context = new Mixtral.Context(path);
        Mixtral.Session session = new Mixtral.Session(context, 0)) { // greedy
      session.feed(context.tokenize("RETURN VALUE\n       On success,"));
      session.generate(
          48,
          (token, text) -> {
            System.out.print(text);
            return !System.out.checkError(); // flushes
          });
      printExperts(context.routingCounts());
    } catch (Mixtral.MixtralException error) {
      System.err.println(error.getMessage());
      System.exit(1);
    }
  }
}
