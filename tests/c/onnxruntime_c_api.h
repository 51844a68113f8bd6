/* What docs/serving-c.md calls of ONNX Runtime's C API, at its places in the table of functions.

   The table only ever grows at its end, so a program built on this runs on any later library. No
   package brings the header of the API; programs outside of these tests take that of a release. */
#include <stddef.h>
#include <stdint.h>

#define ORT_API_VERSION 16

enum { ORT_LOGGING_LEVEL_WARNING = 2 };
enum { OrtMemTypeDefault = 0, OrtArenaAllocator = 1 };
enum { ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32 = 6 };

typedef struct OrtEnv OrtEnv;
typedef struct OrtMemoryInfo OrtMemoryInfo;
typedef struct OrtRunOptions OrtRunOptions;
typedef struct OrtSession OrtSession;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtStatus OrtStatus;
typedef struct OrtTensorTypeAndShapeInfo OrtTensorTypeAndShapeInfo;
typedef struct OrtValue OrtValue;

typedef struct {
  void *before_2[2];
  const char *(*GetErrorMessage)(const OrtStatus *);
  OrtStatus *(*CreateEnv)(int level, const char *name, OrtEnv **);
  void *before_7[3];
  OrtStatus *(*CreateSession)(const OrtEnv *, const char *path, const OrtSessionOptions *, OrtSession **);
  void *before_9[1];
  OrtStatus *(*Run)(OrtSession *, const OrtRunOptions *, const char *const *inputs, const OrtValue *const *given,
                    size_t, const char *const *outputs, size_t, OrtValue **results);
  OrtStatus *(*CreateSessionOptions)(OrtSessionOptions **);
  void *before_49[38];
  OrtStatus *(*CreateTensorWithDataAsOrtValue)(const OrtMemoryInfo *, void *data, size_t bytes,
                                               const int64_t *shape, size_t rank, int type, OrtValue **);
  void *before_51[1];
  OrtStatus *(*GetTensorMutableData)(OrtValue *, void **);
  void *before_64[12];
  OrtStatus *(*GetTensorShapeElementCount)(const OrtTensorTypeAndShapeInfo *, size_t *);
  OrtStatus *(*GetTensorTypeAndShape)(const OrtValue *, OrtTensorTypeAndShapeInfo **);
  void *before_69[3];
  OrtStatus *(*CreateCpuMemoryInfo)(int allocator, int type, OrtMemoryInfo **);
  void *before_92[22];
  void (*ReleaseEnv)(OrtEnv *);
  void (*ReleaseStatus)(OrtStatus *);
  void (*ReleaseMemoryInfo)(OrtMemoryInfo *);
  void (*ReleaseSession)(OrtSession *);
  void (*ReleaseValue)(OrtValue *);
  void *before_99[2];
  void (*ReleaseTensorTypeAndShapeInfo)(OrtTensorTypeAndShapeInfo *);
  void (*ReleaseSessionOptions)(OrtSessionOptions *);
} OrtApi;

typedef struct {
  const OrtApi *(*GetApi)(uint32_t version);
} OrtApiBase;

const OrtApiBase *OrtGetApiBase(void);
