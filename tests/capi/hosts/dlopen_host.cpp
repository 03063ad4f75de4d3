// A host that uses protobuf itself and loads libmixtral with dlopen, twice: the library's own copy of protobuf inside
// sentencepiece must not meet the host's.  Arguments: the library, a model.
#include <dlfcn.h>
#include <google/protobuf/descriptor.pb.h>

#include <string>

#include "host.h"

namespace {

template <class F>
F* find(void* library, const char* name) {
  void* symbol = dlsym(library, name);
  REQUIRE(symbol != nullptr);
  return reinterpret_cast<F*>(symbol);
}

// A round trip through the host's protobuf.
void use_protobuf() {
  google::protobuf::FileDescriptorProto file;
  file.set_name("host.proto");
  file.add_message_type()->set_name("Message");
  google::protobuf::FileDescriptorProto again;
  REQUIRE(again.ParseFromString(file.SerializeAsString()));
  REQUIRE(again.message_type(0).name() == "Message");
}

void use_library(const char* path, const std::string& model) {
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) std::fprintf(stderr, "%s\n", dlerror());
  REQUIRE(library != nullptr);
  mixtral_ctx* ctx = nullptr;
  REQUIRE(find<decltype(mixtral_ctx_create)>(library, "mixtral_ctx_create")(model.data(), model.size(), nullptr,
                                                                            &ctx) == MIXTRAL_OK);
  std::int32_t ids[32];
  std::size_t n = 0;
  REQUIRE(find<decltype(mixtral_tokenize)>(library, "mixtral_tokenize")(ctx, "a value", 7, MIXTRAL_TOKENIZE_BOS, ids,
                                                                        32, &n) == MIXTRAL_OK);
  mixtral_session* session = nullptr;
  REQUIRE(find<decltype(mixtral_session_create)>(library, "mixtral_session_create")(ctx, nullptr, &session) ==
          MIXTRAL_OK);
  REQUIRE(find<decltype(mixtral_session_feed)>(library, "mixtral_session_feed")(session, ids, n, 0) == MIXTRAL_OK);
  std::int32_t token = -1;
  REQUIRE(find<decltype(mixtral_session_step)>(library, "mixtral_session_step")(session, &token) == MIXTRAL_OK);
  REQUIRE(token >= 0);
  find<decltype(mixtral_session_destroy)>(library, "mixtral_session_destroy")(session);
  find<decltype(mixtral_ctx_destroy)>(library, "mixtral_ctx_destroy")(ctx);
  REQUIRE(dlclose(library) == 0);
}

}  // namespace

int main(int argc, char** argv) {
  REQUIRE(argc == 3);
  for (int i = 0; i < 2; ++i) {
    use_protobuf();
    use_library(argv[1], argv[2]);
  }
  use_protobuf();
  std::puts("a host with protobuf: both work");
  return 0;
}
