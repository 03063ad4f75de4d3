// Java: opens a model, streams a greedy completion, prints which experts worked.
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;

public final class Complete {
  private Complete() {}

  // System.out has the locale's encoding, which may not know all characters.
  private static final PrintStream OUT =
      new PrintStream(new FileOutputStream(FileDescriptor.out), false, StandardCharsets.UTF_8);

  // A line for each layer: which percentage of its tokens' choices fell on each expert.
  private static void printExperts(long[][] counts) {
    OUT.print("\n\nshare of each expert (%)\n");
    for (int layer = 0; layer < counts.length; ++layer) {
      long total = Arrays.stream(counts[layer]).sum();
      OUT.printf("layer %d:", layer);
      for (long count : counts[layer]) {
        OUT.printf("%4d", (100 * count + total / 2) / total);
      }
      OUT.print("\n");
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
            OUT.print(text);
            return !OUT.checkError(); // flushes
          });
      printExperts(context.routingCounts());
      OUT.flush();
    } catch (Mixtral.MixtralException error) {
      System.err.println(error.getMessage());
      System.exit(1);
    }
  }
}
