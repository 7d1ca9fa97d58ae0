/* Which panel height and which types go with a tensor's role. */
#include "formats/cvq_layout.h"

uint32_t cvq_panel_rows_for(cvq_role role) {
    return role == CVQ_ROLE_MATRIX ? CVQ_PANEL_ROWS : 1;
}

bool cvq_type_allowed(cvq_role role, cvq_type type) {
    switch (role) {
    case CVQ_ROLE_MATRIX:
        return type != CVQ_TYPE_F32 && type < CVQ_TYPES;
    case CVQ_ROLE_TABLE:
        return type < CVQ_TYPES;
    case CVQ_ROLE_VECTOR:
        return type == CVQ_TYPE_F32;
    case CVQ_ROLE_INV_FREQ:
        return type == CVQ_TYPE_F32 || type == CVQ_TYPE_BF16;
    }
    return false;
}

bool cvq_tensor_finite(const cvq_tensor *t, const uint8_t *data, uint64_t at, uint64_t size) {
    const size_t cols = (size_t)t->spec.cols;
    const uint64_t panel = cvq_panel_bytes(cvq_type_describe(t->type), t->panel_rows, cols);
    for (uint64_t p = at / panel; p * panel < at + size; p++)
        if (!cvq_panel_finite(t->type, t->panel_rows, data + p * panel, cols)) return false;
    return true;
}
