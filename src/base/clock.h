/* Monotonic time. */
#ifndef IMP_BASE_CLOCK_H
#define IMP_BASE_CLOCK_H

double clock_ms(void); /* since an arbitrary moment, never backwards */

#endif
