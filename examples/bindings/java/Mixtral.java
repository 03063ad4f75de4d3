// A binding of libmixtral's C ABI: handles and their ends here, calls in mixtral_jni.c. Copy both, and add what you
// need of mixtral.h.
import java.lang.ref.Cleaner;
import java.lang.ref.Reference;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.function.LongConsumer;

public final class Mixtral {
  private Mixtral() {}

  static {
    System.loadLibrary("mixtral_jni");
  }

  /** The text is the library's, with names and numbers. */
  public static final class MixtralException extends RuntimeException {
    /** One of MIXTRAL_*. */
    public final int status;

    // Called by mixtral_jni.c.
    MixtralException(int status, byte[] text) {
      super(new String(text, StandardCharsets.UTF_8));
      this.status = status;
    }
  }

  /** Receives each token. False ends the text; what it throws comes out of generate(). */
  public interface TokenListener {
    boolean onToken(int token, String text);
  }

  private static final Cleaner CLEANER = Cleaner.create();

  // What is freed, by close() or after the owner was forgotten: once, whoever comes first. It must not refer to its
  // owner.
  private static final class Free implements Runnable {
    long handle;
    private final LongConsumer destroy;

    Free(long handle, LongConsumer destroy) {
      this.handle = handle;
      this.destroy = destroy;
    }

    @Override
    public void run() {
      destroy.accept(handle);
      handle = 0;
    }
  }

  private abstract static class Handle implements AutoCloseable {
    private final Free free;
    private final Cleaner.Cleanable cleanable;

    Handle(long handle, LongConsumer destroy) {
      free = new Free(handle, destroy);
      cleanable = CLEANER.register(this, free);
    }

    // 0 after close(): the library takes that for an error.
    long handle() {
      return free.handle;
    }

    @Override
    public void close() {
      cleanable.clean();
    }
  }

  /** A model, its tokenizer and its threads. May be used from several threads, but not during close(). */
  public static final class Context extends Handle {
    public Context(String path) {
      super(ctxCreate(path.getBytes(StandardCharsets.UTF_8)), Mixtral::ctxDestroy);
    }

    public int[] tokenize(String text) {
      try {
        return Mixtral.tokenize(handle(), text.getBytes(StandardCharsets.UTF_8));
      } finally {
        Reference.reachabilityFence(this); // or the cleaner may come during the call
      }
    }

    /** For each layer, how often each expert was chosen. (uint64_t in C: Long.toUnsignedString() for huge ones.) */
    public long[][] routingCounts() {
      try {
        int nExperts = nExperts(handle());
        long[] counts = Mixtral.routingCounts(handle());
        long[][] rows = new long[counts.length / nExperts][];
        for (int i = 0; i < rows.length; ++i) {
          rows[i] = Arrays.copyOfRange(counts, i * nExperts, (i + 1) * nExperts);
        }
        return rows;
      } finally {
        Reference.reachabilityFence(this);
      }
    }
  }

  /** One sequence of tokens, for one thread at a time. It keeps the model alive by itself: close in any order. */
  public static final class Session extends Handle {
    public Session(Context context, float temperature) {
      super(sessionCreate(context.handle(), temperature), Mixtral::sessionDestroy);
      Reference.reachabilityFence(context);
    }

    public void feed(int[] tokens) {
      try {
        Mixtral.feed(handle(), tokens);
      } finally {
        Reference.reachabilityFence(this);
      }
    }

    /** Blocks; calls the listener on this thread. */
    public void generate(long maxTokens, TokenListener listener) {
      try {
        Mixtral.generate(handle(), maxTokens, listener);
      } finally {
        Reference.reachabilityFence(this);
      }
    }

    /** Ends, from any thread, what the session is doing. */
    public void cancel() {
      sessionCancel(handle());
      Reference.reachabilityFence(this);
    }
  }

  // mixtral_jni.c calls this on the thread that is in generate(). Java's own native strings are not UTF-8, so bytes.
  private static boolean onToken(TokenListener listener, int token, byte[] text) {
    return listener.onToken(token, new String(text, StandardCharsets.UTF_8));
  }

  private static native long ctxCreate(byte[] path);
  private static native void ctxDestroy(long ctx);
  private static native int[] tokenize(long ctx, byte[] text);
  private static native int nExperts(long ctx);
  private static native long[] routingCounts(long ctx);
  private static native long sessionCreate(long ctx, float temperature);
  private static native void sessionDestroy(long session);
  private static native void sessionCancel(long session);
  private static native void feed(long session, int[] tokens);
  private static native void generate(long session, long maxTokens, TokenListener listener);
}
