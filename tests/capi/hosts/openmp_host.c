/* A host that itself uses OpenMP: its settings are the same before and after, its own parallel regions go on working,
 * and steps may be run from inside them.  Argument: a model. */
#include <omp.h>

#include "host.h"

struct settings {
  int threads, dynamic, levels, limit;
  omp_sched_t schedule;
  int chunk;
};

static struct settings settings(void) {
  struct settings s;
  memset(&s, 0, sizeof s);
  s.threads = omp_get_max_threads();
  s.dynamic = omp_get_dynamic();
  s.levels = omp_get_max_active_levels();
  s.limit = omp_get_thread_limit();
  omp_get_schedule(&s.schedule, &s.chunk);
  return s;
}

static void work(mixtral_ctx* ctx) {
  mixtral_session* session;
  const int32_t prompt[] = {1, 50, 60};
  int32_t token;
  REQUIRE(mixtral_session_create(ctx, NULL, &session) == MIXTRAL_OK);
  REQUIRE(mixtral_session_feed(session, prompt, 3, 0) == MIXTRAL_OK);
  REQUIRE(mixtral_session_step(session, &token) == MIXTRAL_OK);
  REQUIRE(mixtral_session_step(session, &token) == MIXTRAL_OK);
  mixtral_session_destroy(session);
}

int main(int argc, char** argv) {
  REQUIRE(argc == 2);
  omp_set_num_threads(3);
  omp_set_dynamic(1);
  omp_set_max_active_levels(2);
  omp_set_schedule(omp_sched_guided, 7);
  for (int executor = MIXTRAL_EXECUTOR_THREADS; executor <= MIXTRAL_EXECUTOR_OPENMP; ++executor) {
    const struct settings before = settings();
    mixtral_params params;
    mixtral_ctx* ctx;
    REQUIRE(mixtral_params_init(&params, sizeof params) == MIXTRAL_OK);
    params.executor = executor;
    params.n_threads = 2;
    REQUIRE(mixtral_ctx_create(argv[1], strlen(argv[1]), &params, &ctx) == MIXTRAL_OK);
    work(ctx);
    int members = 0;
#pragma omp parallel num_threads(3) reduction(+ : members)
    {
      work(ctx);
      members += 1;
    }
    REQUIRE(members >= 1);
    mixtral_ctx_destroy(ctx);
    const struct settings after = settings();
    REQUIRE(memcmp(&before, &after, sizeof before) == 0);
  }
  puts("a host with OpenMP: nothing changed");
  return 0;
}
