#include "ops/document_bounds.h"

#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include "ops/attention.h"
#include "ops/testing.h"

namespace nanochat::ops {
namespace {

using testing::offsets_of;
using testing::random_tensor;
using testing::relative_error;

TEST(DocumentBounds, CountPositionsFromEachBeginning) {
  const DocumentBounds bounds = make_document_bounds(offsets_of({3, 1, 4}), 2, 4, at::kCPU);
  EXPECT_EQ(bounds.count(), 3);
  EXPECT_EQ(bounds.longest, 4);
  const std::int32_t expected[] = {0, 1, 2, 0, 0, 1, 2, 3};
  const at::Tensor positions = positions_in_documents(bounds);
  ASSERT_EQ(positions.numel(), 8);
  for (int i = 0; i < 8; ++i) EXPECT_EQ(positions.const_data_ptr<std::int32_t>()[i], expected[i]) << i;
}

TEST(DocumentBounds, RefuseWhatDoesNotFitTheRows) {
  EXPECT_THROW(make_document_bounds(offsets_of({3, 4}), 2, 4, at::kCPU), c10::Error) << "one position too few";
  EXPECT_THROW(make_document_bounds(offsets_of({3, 5}), 2, 4, at::kCPU), c10::Error) << "crosses from row to row";
  EXPECT_THROW(make_document_bounds(offsets_of({4, 0, 4}), 2, 4, at::kCPU), c10::Error) << "empty";
  EXPECT_THROW(make_document_bounds(offsets_of({}), 2, 4, at::kCPU), c10::Error);
  EXPECT_THROW(make_document_bounds(offsets_of({4, 4}).to(at::kLong), 2, 4, at::kCPU), c10::Error);
}

struct Case {
  at::ScalarType dtype;
  std::int64_t n_head, n_kv_head, d;
};

// Own kernels where the processor has them take the same document the same way wherever it lies: equal bits. ATen's
// kernels choose their blocks by the shape of the batch.
class DocumentAttention : public ::testing::TestWithParam<Case> {};

TEST_P(DocumentAttention, IsThatOfEachDocumentAlone) {
  // Where a window cuts a document of the batch, all of them are computed in float32; alone, those that fit their window have
  // the processor's own kernel, if it has one, which rounds the weights of a query to bfloat16.
  constexpr double kExact = 1e-6, kRounded = 8e-3;
  for (const AttentionScope& window : {AttentionScope{}, AttentionScope{.window = 40, .scale = 1.44}}) {
    // Two documents are longer than the window, the others are not.
    const Case& c = GetParam();
    const double tolerance = window.window && c.dtype == at::kBFloat16 ? kRounded : kExact;
    const std::vector<std::int32_t> lengths = {1, 33, 66, 64, 36};  // rows of 100
    const DocumentBounds bounds = make_document_bounds(offsets_of(lengths), 2, 100, at::kCPU);
    const at::Tensor q = random_tensor({2, 100, c.n_head, c.d}, c.dtype, 1),
                     k = random_tensor({2, 100, c.n_kv_head, c.d}, c.dtype, 2);
    const at::Tensor v = random_tensor({2, 100, 3 * c.n_kv_head, c.d}, c.dtype, 3).narrow(2, c.n_kv_head, c.n_kv_head);
    const at::Tensor dout = random_tensor(q.sizes(), c.dtype, 4);
    AttentionScope scope = window;
    scope.documents = &bounds;
    const AttentionForward forward = causal_attention(q, k, v, scope);
    const AttentionBackward backward = causal_attention_backward(dout, q, k, v, forward, scope);
    EXPECT_EQ(forward.out.sizes(), q.sizes());
    EXPECT_EQ(backward.dk.sizes(), k.sizes());
    for (std::size_t i = 0; i < lengths.size(); ++i) {
      const auto part = [&](const at::Tensor& x) {
        return x.flatten(0, 1).narrow(0, bounds.offsets[i], lengths[i]).unsqueeze(0).contiguous();
      };
      const AttentionForward alone = causal_attention(part(q), part(k), part(v), window);
      const AttentionBackward gradients = causal_attention_backward(part(dout), part(q), part(k), part(v), alone, window);
      EXPECT_LT(relative_error(part(forward.out), alone.out), tolerance) << i;
      EXPECT_LT(relative_error(part(backward.dv), gradients.dv), tolerance) << i;
      if (lengths[i] == 1) continue;  // a single key: the others are zero but for rounding
      EXPECT_LT(relative_error(part(backward.dq), gradients.dq), tolerance) << i;
      EXPECT_LT(relative_error(part(backward.dk), gradients.dk), tolerance) << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, DocumentAttention,
                         ::testing::Values(Case{at::kFloat, 4, 4, 16}, Case{at::kFloat, 4, 2, 32},
                                           Case{at::kBFloat16, 4, 4, 64}, Case{at::kBFloat16, 4, 2, 32},
                                           Case{at::kBFloat16, 2, 1, 16}));

TEST(DocumentAttention, OneDocumentARowIsCausalAttention) {
  const at::Tensor q = random_tensor({2, 40, 4, 32}, at::kBFloat16, 1), k = random_tensor(q.sizes(), at::kBFloat16, 2);
  const DocumentBounds bounds = make_document_bounds(offsets_of({40, 40}), 2, 40, at::kCPU);
  EXPECT_TRUE(at::equal(causal_attention(q, k, k, {&bounds}).out, causal_attention(q, k, k).out));
}

TEST(DocumentAttention, RefusesBoundsOfAnotherBatch) {
  const at::Tensor q = random_tensor({2, 40, 4, 32}, at::kFloat, 1);
  const DocumentBounds bounds = make_document_bounds(offsets_of({40}), 1, 40, at::kCPU);
  EXPECT_THROW(causal_attention(q, q, q, {&bounds}), c10::Error);
}

}  // namespace
}  // namespace nanochat::ops
