// The kernels of matrix_product.cpp for the C++ programs that Inductor writes, which begin with this text, after
// "extern". They are given the result and two tensors, as Inductor's own products are, and the numbers of a window.
void lightning_meta_product(const struct LightningMetaTensor*, const LightningMetaTensor*, const LightningMetaTensor*,
                            const int64_t*);
using LightningMetaKernel = decltype(lightning_meta_product);
LightningMetaKernel lightning_meta_patches_product, lightning_meta_product_patches, lightning_meta_product_images;

struct LightningMetaTensor {
  void* data;
  int64_t *sizes, *strides;
};

inline AOTITorchError lightning_meta_read(AtenTensorHandle handle, LightningMetaTensor* tensor) {
  AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(handle, &tensor->data));
  AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(handle, &tensor->sizes));
  AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_strides(handle, &tensor->strides));
  return AOTI_TORCH_SUCCESS;
}

inline AOTITorchError lightning_meta_call(LightningMetaKernel* kernel, AtenTensorHandle out, AtenTensorHandle left,
                                          AtenTensorHandle right, const int64_t* window) {
  LightningMetaTensor a, b, c;
  AOTI_TORCH_ERROR_CODE_CHECK(lightning_meta_read(left, &a));
  AOTI_TORCH_ERROR_CODE_CHECK(lightning_meta_read(right, &b));
  AOTI_TORCH_ERROR_CODE_CHECK(lightning_meta_read(out, &c));
  kernel(&a, &b, &c, window);
  return AOTI_TORCH_SUCCESS;
}

inline AOTITorchError aoti_torch_cpu_lightning_meta_product(AtenTensorHandle out, AtenTensorHandle left,
                                                            AtenTensorHandle right) {
  return lightning_meta_call(lightning_meta_product, out, left, right, nullptr);
}

#define LIGHTNING_META_WITH_WINDOW(name)                                                                           \
  inline AOTITorchError aoti_torch_cpu_##name(AtenTensorHandle out, AtenTensorHandle left, AtenTensorHandle right, \
                                              int64_t height, int64_t width, int64_t down, int64_t across,         \
                                              int64_t dilation_down, int64_t dilation_across, int64_t rows,        \
                                              int64_t columns) {                                                   \
    const int64_t window[] = {height, width, down, across, dilation_down, dilation_across, rows, columns};         \
    return lightning_meta_call(name, out, left, right, window);                                                    \
  }
LIGHTNING_META_WITH_WINDOW(lightning_meta_patches_product)
LIGHTNING_META_WITH_WINDOW(lightning_meta_product_patches)
LIGHTNING_META_WITH_WINDOW(lightning_meta_product_images)
