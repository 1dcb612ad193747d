"""Torch's operations by what a backward rule has to know of them, under the names they are dispatched by."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# tell about a tensor without its values
FACTS = _words("""
    shape device dtype ndim is_cuda requires_grad is_leaf layout grad_fn names is_sparse is_nested is_quantized
    is_mkldnn is_meta dim ndimension size numel nelement stride is_contiguous is_floating_point is_complex get_device
    __len__ __hash__ element_size storage_offset
""")

# affine in all their tensors together
LINEAR = _words("""
    T mT H mH flatten unflatten view view_as reshape reshape_as permute transpose swapaxes swapdims movedim moveaxis t
    squeeze unsqueeze expand expand_as broadcast_to repeat repeat_interleave tile contiguous clone to float double half
    bfloat16 cpu cuda type type_as __getitem__ select narrow index_select gather take chunk split tensor_split unbind
    cat concat concatenate stack hstack vstack dstack sum mean neg negative positive __neg__ __pos__ add sub subtract
    rsub __add__ __radd__ __iadd__ __sub__ __rsub__ __isub__ where masked_fill pad roll flip rot90 cumsum diff diagonal
    tril triu avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d interpolate
    upsample pixel_shuffle pixel_unshuffle channel_shuffle fold unfold dropout dropout1d dropout2d dropout3d
    alpha_dropout feature_alpha_dropout zeros_like ones_like full_like empty_like new_zeros new_ones new_full new_empty
    new_tensor
""")

# linear in one of their tensors
PRODUCTS = _words("""
    mul multiply __mul__ __rmul__ __imul__ matmul __matmul__ __rmatmul__ mm bmm mv dot inner outer einsum tensordot
    linear bilinear addmm addmv baddbmm conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d
    batch_norm
""")

# linear in their first tensor
QUOTIENTS = _words("div divide true_divide __div__ __truediv__ __itruediv__")

# of one tensor, number by number
ELEMENTWISE = _words("""
    relu relu6 leaky_relu elu selu celu gelu silu mish sigmoid tanh softplus softsign hardtanh hardsigmoid hardswish
    logsigmoid threshold clamp clip clamp_min clamp_max exp expm1 log log1p sqrt rsqrt square abs absolute reciprocal
    sin cos erf atan prelu rrelu tanhshrink softshrink hardshrink pow __pow__
""")

# maxima over windows: over how many of the last axes
POOLS = {f"{kind}max_pool{axes}d": axes for kind in ("", "adaptive_") for axes in (1, 2, 3)}
