// parity_logits CHECKPOINT IDS OUTPUT: reads `ids` int32 (B, T) from the safetensors file IDS and writes `logits`
// float32 (B, T, vocab_size) to OUTPUT. A tool of transformers_parity.py, not of users.

#include <exception>
#include <iostream>

#include "checkpoint/checkpoint.h"
#include "checkpoint/safetensors.h"

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: parity_logits CHECKPOINT IDS.safetensors OUTPUT.safetensors\n";
    return 2;
  }
  try {
    const nanochat::LoadedModel loaded = nanochat::load_model(argv[1], at::kFloat);
    const at::Tensor ids = nanochat::SafetensorsFile(argv[2]).tensor("ids");
    nanochat::write_safetensors(argv[3], {{"logits", loaded.model->forward(ids)}});
  } catch (const std::exception& error) {
    std::cerr << "parity_logits: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
