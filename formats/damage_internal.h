/* How messages about a bad file end: what to do about it. */
#ifndef CVQ_FORMATS_DAMAGE_INTERNAL_H
#define CVQ_FORMATS_DAMAGE_INTERNAL_H

#define CVQ_DAMAGED "; the file is damaged: fetch it again or convert the model again"

#endif
