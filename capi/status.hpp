// The border between C++ and C: no exception crosses it, every failure becomes a status and a text.
#pragma once

#include <exception>
#include <new>
#include <system_error>

#include "mixtral.h"
#include "mixtral/core/error.hpp"

namespace mixtral::capi {

// Room for an error's text and its terminating 0.
inline constexpr std::size_t kErrorBytes = 1024;

// Keeps `text`, without its middle if it is too long, as this thread's mixtral_last_error(). Allocates nothing.
void set_last_error(std::string_view text) noexcept;

inline mixtral_status failed(ErrorCode code, std::string_view text) noexcept {
  set_last_error(text);
  return static_cast<mixtral_status>(code);
}

// A failure whose text is kept already.
struct ReportedStatus {
  mixtral_status status;
};

// The status of the exception that is being handled.
inline mixtral_status status_of_exception() noexcept {
  try {
    throw;
  } catch (const ReportedStatus& reported) {
    return reported.status;
  } catch (const Error& error) {
    return failed(error.code(), error.what());
  } catch (const std::bad_alloc&) {
    return failed(ErrorCode::kOutOfMemory, "out of memory");
  } catch (const std::length_error&) {  // a container that no memory could hold
    return failed(ErrorCode::kOutOfMemory, "out of memory: more elements than a container can count");
  } catch (const std::system_error& error) {  // the standard library's: files, locks
    return failed(ErrorCode::kIo, error.what());
  } catch (const std::exception& error) {
    return failed(ErrorCode::kInternal, error.what());
  } catch (...) {
    return failed(ErrorCode::kInternal, "an exception that is no std::exception, from a callback");
  }
}

template <class F>
mixtral_status guarded(F&& action) noexcept {
  try {
    action();
    return MIXTRAL_OK;
  } catch (...) {
    return status_of_exception();
  }
}

}  // namespace mixtral::capi
