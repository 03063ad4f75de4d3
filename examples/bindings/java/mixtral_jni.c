// The native methods of Mixtral.java. `javac -h` writes Mixtral.h, whose prototypes these must match.
#include "Mixtral.h"

#include <stdint.h>

#include "mixtral.h"

#define CTX(handle) ((mixtral_ctx*)(intptr_t)(handle))
#define SESSION(handle) ((mixtral_session*)(intptr_t)(handle))

static jbyteArray bytes_of(JNIEnv* env, const char* data, size_t size) {
  const jbyteArray out = (*env)->NewByteArray(env, (jsize)size);  // NULL: an OutOfMemoryError is on its way
  if (out != NULL) (*env)->SetByteArrayRegion(env, out, 0, (jsize)size, (const jbyte*)data);
  return out;
}

static const char* end_of(const char* text) {
  while (*text != '\0') ++text;
  return text;
}

// Makes a failure the exception that is thrown when the native method returns. 1: all is well.
static int check(JNIEnv* env, mixtral_status status) {
  if ((*env)->ExceptionCheck(env)) return 0;  // a callback's own exception goes before what it made the library say
  if (status == MIXTRAL_OK) return 1;
  const char* text = mixtral_last_error();  // of this thread
  const jclass type = (*env)->FindClass(env, "Mixtral$MixtralException");
  if (type == NULL) return 0;
  const jmethodID make = (*env)->GetMethodID(env, type, "<init>", "(I[B)V");
  const jbyteArray bytes = make == NULL ? NULL : bytes_of(env, text, (size_t)(end_of(text) - text));
  const jobject error = bytes == NULL ? NULL : (*env)->NewObject(env, type, make, (jint)status, bytes);
  if (error != NULL) (*env)->Throw(env, (jthrowable)error);
  return 0;
}

JNIEXPORT jlong JNICALL Java_Mixtral_ctxCreate(JNIEnv* env, jclass self, jbyteArray path) {
  (void)self;
  mixtral_ctx* ctx = NULL;
  jbyte* bytes = (*env)->GetByteArrayElements(env, path, NULL);
  if (bytes == NULL) return 0;
  const size_t size = (size_t)(*env)->GetArrayLength(env, path);
  const mixtral_status status = mixtral_ctx_create((const char*)bytes, size, NULL, &ctx);
  (*env)->ReleaseByteArrayElements(env, path, bytes, JNI_ABORT);
  check(env, status);
  return (jlong)(intptr_t)ctx;
}

JNIEXPORT void JNICALL Java_Mixtral_ctxDestroy(JNIEnv* env, jclass self, jlong ctx) {
  (void)env, (void)self;
  mixtral_ctx_destroy(CTX(ctx));
}

JNIEXPORT jintArray JNICALL Java_Mixtral_tokenize(JNIEnv* env, jclass self, jlong ctx, jbyteArray text) {
  (void)self;
  jbyte* bytes = (*env)->GetByteArrayElements(env, text, NULL);
  if (bytes == NULL) return NULL;
  const size_t size = (size_t)(*env)->GetArrayLength(env, text);
  size_t n = 0;
  mixtral_status status = mixtral_tokenize(CTX(ctx), (const char*)bytes, size, MIXTRAL_TOKENIZE_BOS, NULL, 0, &n);
  jintArray out = NULL;
  if (status == MIXTRAL_OK || status == MIXTRAL_BUFFER_TOO_SMALL) out = (*env)->NewIntArray(env, (jsize)n);
  jint* tokens = out == NULL ? NULL : (*env)->GetIntArrayElements(env, out, NULL);
  if (tokens != NULL) {
    status = mixtral_tokenize(CTX(ctx), (const char*)bytes, size, MIXTRAL_TOKENIZE_BOS, tokens, n, &n);
    (*env)->ReleaseIntArrayElements(env, out, tokens, 0);
  }
  (*env)->ReleaseByteArrayElements(env, text, bytes, JNI_ABORT);
  return check(env, status) ? out : NULL;
}

JNIEXPORT jint JNICALL Java_Mixtral_nExperts(JNIEnv* env, jclass self, jlong ctx) {
  (void)self;
  mixtral_info info = {.struct_size = sizeof info};
  return check(env, mixtral_ctx_info(CTX(ctx), &info)) ? (jint)info.n_experts : 0;
}

JNIEXPORT jlongArray JNICALL Java_Mixtral_routingCounts(JNIEnv* env, jclass self, jlong ctx) {
  (void)self;
  size_t n = 0;
  const mixtral_status status = mixtral_ctx_routing_counts(CTX(ctx), NULL, 0, &n);  // how many?
  if (status != MIXTRAL_BUFFER_TOO_SMALL && !check(env, status)) return NULL;
  const jlongArray out = (*env)->NewLongArray(env, (jsize)n);
  jlong* counts = out == NULL ? NULL : (*env)->GetLongArrayElements(env, out, NULL);
  if (counts == NULL) return NULL;
  const mixtral_status filled = mixtral_ctx_routing_counts(CTX(ctx), (uint64_t*)counts, n, &n);
  (*env)->ReleaseLongArrayElements(env, out, counts, 0);
  return check(env, filled) ? out : NULL;
}

JNIEXPORT jlong JNICALL Java_Mixtral_sessionCreate(JNIEnv* env, jclass self, jlong ctx, jfloat temperature) {
  (void)self;
  mixtral_session* session = NULL;
  mixtral_sampler_params params;
  mixtral_sampler_params_init(&params, sizeof params);
  params.temperature = temperature;
  mixtral_status status = mixtral_session_create(CTX(ctx), NULL, &session);
  if (status == MIXTRAL_OK) status = mixtral_session_set_sampler(session, &params);
  if (check(env, status)) return (jlong)(intptr_t)session;
  mixtral_session_destroy(session);
  return 0;
}

JNIEXPORT void JNICALL Java_Mixtral_sessionDestroy(JNIEnv* env, jclass self, jlong session) {
  (void)env, (void)self;
  mixtral_session_destroy(SESSION(session));
}

JNIEXPORT void JNICALL Java_Mixtral_sessionCancel(JNIEnv* env, jclass self, jlong session) {
  (void)env, (void)self;
  mixtral_session_cancel(SESSION(session));
}

JNIEXPORT void JNICALL Java_Mixtral_feed(JNIEnv* env, jclass self, jlong session, jintArray tokens) {
  (void)self;
  jint* ids = (*env)->GetIntArrayElements(env, tokens, NULL);
  if (ids == NULL) return;
  const size_t n = (size_t)(*env)->GetArrayLength(env, tokens);
  const mixtral_status status = mixtral_session_feed(SESSION(session), (const int32_t*)ids, n, 0);
  (*env)->ReleaseIntArrayElements(env, tokens, ids, JNI_ABORT);
  check(env, status);
}

// What a callback needs. `env` is the calling thread's, and the callback comes on that thread: nothing to attach.
typedef struct {
  JNIEnv* env;
  jclass mixtral;
  jmethodID on_token;
  jobject listener;
} generate_call;

static int32_t on_token(void* user, int32_t token, const char* text, size_t size) {
  const generate_call* call = user;
  JNIEnv* env = call->env;
  const jbyteArray bytes = bytes_of(env, text, size);
  if (bytes == NULL) return 1;
  const jboolean go_on =
      (*env)->CallStaticBooleanMethod(env, call->mixtral, call->on_token, call->listener, (jint)token, bytes);
  if ((*env)->ExceptionCheck(env)) return 1;  // it stays pending, and comes out of generate()
  (*env)->DeleteLocalRef(env, bytes);         // thousands of them would fill the table of this native call
  return go_on ? 0 : 1;
}

JNIEXPORT void JNICALL Java_Mixtral_generate(JNIEnv* env, jclass self, jlong session, jlong n, jobject listener) {
  generate_call call = {env, self, NULL, listener};
  call.on_token = (*env)->GetStaticMethodID(env, self, "onToken", "(LMixtral$TokenListener;I[B)Z");
  if (call.on_token == NULL) return;
  mixtral_generate_params params;
  mixtral_generate_params_init(&params, sizeof params);
  params.max_tokens = n;
  params.on_token = on_token;
  params.user = &call;
  check(env, mixtral_session_generate(SESSION(session), &params, NULL));
}
