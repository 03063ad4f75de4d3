// Which dimensions of a head RoPE rotates together.
#pragma once

namespace mixtral {

// Hugging Face checkpoints: i with i + head_dim/2. Mistral's own: 2i with 2i + 1.
enum class RopePairing { kHalfSplit, kInterleaved };

}  // namespace mixtral
