/* A CUDA driver that has no card: cuDNN's libraries load with it and plan, and nothing can run.

   Each function does as the driver's own does on a machine without a card, except that a context seems to
   be current, without which cuDNN does not begin. */

#include <stddef.h>

enum { SUCCESS = 0, NO_DEVICE = 100 };

static char context;

int cuInit(unsigned flags) { return NO_DEVICE; }
int cuDriverGetVersion(int *version) { *version = 13000; return SUCCESS; }
int cuDeviceGetCount(int *count) { *count = 0; return SUCCESS; }
int cuDeviceGet(int *device, int ordinal) { *device = 0; return SUCCESS; }
int cuGetErrorName(int error, const char **name) { *name = "CUDA_ERROR_NO_DEVICE"; return SUCCESS; }
int cuGetErrorString(int error, const char **told) { *told = "a stub of a driver: no card"; return SUCCESS; }
int cuCtxGetCurrent(void **current) { *current = &context; return SUCCESS; }
int cuCtxPushCurrent(void *pushed) { return SUCCESS; }
int cuCtxPopCurrent(void **popped) { if (popped != NULL) *popped = &context; return SUCCESS; }
int cuCtxGetLimit(size_t *value, int limit) { *value = 1024; return SUCCESS; }
int cuStreamGetCtx(void *stream, void **current) { *current = &context; return SUCCESS; }

/* What would need a card; the libraries refuse to load where one of these is missing. */
#define REFUSES(name) int name(void) { return NO_DEVICE; }
REFUSES(cuKernelGetAttribute)
REFUSES(cuKernelGetFunction)
REFUSES(cuKernelSetAttribute)
REFUSES(cuLaunchCooperativeKernel)
REFUSES(cuLaunchKernel)
REFUSES(cuLaunchKernelEx)
REFUSES(cuLibraryGetKernel)
REFUSES(cuLibraryLoadData)
REFUSES(cuLibraryLoadFromFile)
REFUSES(cuLibraryUnload)
REFUSES(cuLinkAddData)
REFUSES(cuLinkComplete)
REFUSES(cuLinkCreate)
REFUSES(cuLinkDestroy)
REFUSES(cuModuleGetFunction)
REFUSES(cuModuleLoadData)
REFUSES(cuModuleUnload)
REFUSES(cuOccupancyMaxPotentialClusterSize)
REFUSES(cuTensorMapEncodeIm2col)
REFUSES(cuTensorMapEncodeTiled)
