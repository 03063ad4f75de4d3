/* A host that takes libmixtral in, works with it, and gets rid of it: nothing of it stays mapped. A symbol of the kind
 * "unique" or a destructor at the end of a thread would keep it for ever.  Arguments: the library, a model. */
#include <dlfcn.h>
#include <mixtral.h>
#include <stdio.h>
#include <string.h>

static int is_mapped(const char* name) {
  char line[4096];
  int found = 0;
  FILE* maps = fopen("/proc/self/maps", "r");
  if (maps == NULL) return -1;
  while (fgets(line, sizeof line, maps) != NULL) found |= strstr(line, name) != NULL;
  fclose(maps);
  return found;
}

/* ISO C has no conversion from an object pointer to a function pointer. */
#define FIND(function) memcpy(&function, (void*[]){dlsym(library, "mixtral_" #function)}, sizeof function)

int main(int argc, char** argv) {
  mixtral_status (*ctx_create)(const char*, size_t, const mixtral_params*, mixtral_ctx**);
  void (*ctx_destroy)(mixtral_ctx*);
  mixtral_status (*session_create)(mixtral_ctx*, const mixtral_session_params*, mixtral_session**);
  void (*session_destroy)(mixtral_session*);
  mixtral_status (*session_feed)(mixtral_session*, const int32_t*, size_t, uint32_t);
  mixtral_status (*session_step)(mixtral_session*, int32_t*);
  mixtral_ctx* ctx;
  mixtral_session* session;
  int32_t token = 1;
  void* library;

  if (argc != 3) return 2;
  library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  if (library == NULL || is_mapped("libmixtral") != 1) {
    fprintf(stderr, "not loaded: %s\n", dlerror());
    return 1;
  }
  FIND(ctx_create), FIND(ctx_destroy), FIND(session_create), FIND(session_destroy), FIND(session_feed);
  FIND(session_step);
  if (ctx_create("nowhere", 7, NULL, &ctx) != MIXTRAL_NOT_FOUND) return 1; /* an exception, inside */
  if (ctx_create(argv[2], strlen(argv[2]), NULL, &ctx) != MIXTRAL_OK) return 1;
  if (session_create(ctx, NULL, &session) != MIXTRAL_OK) return 1;
  if (session_feed(session, &token, 1, 0) != MIXTRAL_OK || session_step(session, &token) != MIXTRAL_OK) return 1;
  session_destroy(session);
  ctx_destroy(ctx);
  if (dlclose(library) != 0 || is_mapped("libmixtral") != 0) {
    fprintf(stderr, "still there after dlclose\n");
    return 1;
  }
  puts("loaded, used, unloaded");
  return 0;
}
