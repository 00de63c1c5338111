// The kernel of matrix_product.cpp for the C++ programs that Inductor writes, which it begins with this text, after
// "extern". It is given tensors, as Inductor's own products are.
void lightning_meta_product(const float*, const float*, float*, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t,
                            int64_t);

inline AOTITorchError aoti_torch_cpu_lightning_meta_product(AtenTensorHandle out, AtenTensorHandle a,
                                                            AtenTensorHandle b) {
  void *c, *left, *right;
  int64_t *a_sizes, *a_strides, *b_sizes, *b_strides;
  AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(out, &c));
  AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(a, &left));
  AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(a, &a_sizes));
  AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_strides(a, &a_strides));
  AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(b, &right));
  AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(b, &b_sizes));
  AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_strides(b, &b_strides));
  lightning_meta_product((const float*)left, (const float*)right, (float*)c, a_sizes[0], a_sizes[1], b_sizes[1],
                         a_strides[0], a_strides[1], b_strides[0], b_strides[1]);
  return AOTI_TORCH_SUCCESS;
}
