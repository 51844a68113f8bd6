/* A SavedModel on TensorFlow's C API, by the loader that TensorFlow Serving uses:
 *
 *     runner ARTIFACT_DIR CASES_DIR ANSWERS_DIR
 *
 * export/cases.py describes the cases and the answers. Numbers on disk are little-endian, as this
 * machine's are taken to be.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tensorflow/c/c_api.h>

enum { MAX_RANK = 8, MAX_TENSORS = 32, MAX_PATH = 4096, MAX_MESSAGE = 500 };

typedef struct {
  char name[256];
  TF_Output node;
  TF_Tensor *value;
} Tensor;

typedef struct {
  char number[16];
  char signature[256];
  Tensor inputs[MAX_TENSORS], outputs[MAX_TENSORS];
  int num_inputs, num_outputs;
  char error[MAX_MESSAGE]; /* empty while all is well */
} Case;

static TF_Graph *graph;
static TF_Session *session;
static TF_Status *status;

/* Ends with one sentence. */
static void die(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  fputc('\n', stderr);
  exit(1);
}

/* Keeps the first error of a case, in one line. */
static void refuse(Case *question, const char *format, ...) {
  if (question->error[0]) return;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(question->error, MAX_MESSAGE, format, arguments);
  va_end(arguments);
  for (char *c = question->error; *c; c++) {
    if (*c == '\n' || *c == '\r') *c = ' ';
  }
}

static FILE *open_in(const char *directory, const char *name, const char *mode) {
  char path[MAX_PATH];
  snprintf(path, sizeof path, "%s/%s", directory, name);
  FILE *file = fopen(path, mode);
  if (!file) die("%s: %s", path, strerror(errno));
  return file;
}

static const char *type_name(TF_DataType type) {
  return type == TF_FLOAT ? "float32" : type == TF_INT32 ? "int32" : NULL;
}

/* The next word of a line that strtok_r reads. */
static char *next_word(char **rest) {
  char *word = strtok_r(NULL, " \n", rest);
  if (!word) die("cases.txt: a line ends too early");
  return word;
}

/* The output of the graph that is called NODE:INDEX. */
static TF_Output find_node(Case *question, const char *name, char *node) {
  TF_Output found = {NULL, 0};
  char *colon = strrchr(node, ':');
  if (colon) {
    *colon = '\0';
    found.index = atoi(colon + 1);
    found.oper = TF_GraphOperationByName(graph, node);
  }
  if (!found.oper) refuse(question, "the SavedModel has no tensor %s for %s", node, name);
  return found;
}

static Tensor *add_tensor(Tensor *tensors, int *count, const char *name) {
  if (*count == MAX_TENSORS) die("cases.txt: a case has more than %d tensors", MAX_TENSORS);
  Tensor *tensor = &tensors[(*count)++];
  memset(tensor, 0, sizeof *tensor);
  snprintf(tensor->name, sizeof tensor->name, "%s", name);
  return tensor;
}

/* in NAME TYPE RANK SIZES FILE NODE */
static void add_input(Case *question, const char *directory, char **rest) {
  Tensor *tensor = add_tensor(question->inputs, &question->num_inputs, next_word(rest));
  const char *type_word = next_word(rest);
  TF_DataType type = !strcmp(type_word, "int32") ? TF_INT32 : TF_FLOAT;
  int rank = atoi(next_word(rest));
  if (rank > MAX_RANK) die("cases.txt: a tensor has more than %d axes", MAX_RANK);
  int64_t sizes[MAX_RANK];
  size_t bytes = 4;
  for (int axis = 0; axis < rank; axis++) {
    sizes[axis] = atoll(next_word(rest));
    bytes *= (size_t)sizes[axis];
  }
  const char *file_name = next_word(rest);
  tensor->node = find_node(question, tensor->name, next_word(rest));
  if (strcmp(type_word, type_name(type))) {
    refuse(question, "expected tensors of float32 or int32; got %s", type_word);
    return;
  }
  tensor->value = TF_AllocateTensor(type, sizes, rank, bytes);
  FILE *file = open_in(directory, file_name, "rb");
  if (fread(TF_TensorData(tensor->value), 1, bytes, file) != bytes) {
    die("%s: expected %zu bytes", file_name, bytes);
  }
  fclose(file);
}

/* out NAME NODE */
static void add_output(Case *question, char **rest) {
  Tensor *tensor = add_tensor(question->outputs, &question->num_outputs, next_word(rest));
  tensor->node = find_node(question, tensor->name, next_word(rest));
}

static void run(Case *question) {
  TF_Output from[MAX_TENSORS], to[MAX_TENSORS];
  TF_Tensor *given[MAX_TENSORS], *got[MAX_TENSORS];
  for (int i = 0; i < question->num_inputs; i++) {
    from[i] = question->inputs[i].node;
    given[i] = question->inputs[i].value;
  }
  for (int i = 0; i < question->num_outputs; i++) to[i] = question->outputs[i].node;
  TF_SessionRun(session, NULL, from, given, question->num_inputs, to, got, question->num_outputs,
                NULL, 0, NULL, status);
  if (TF_GetCode(status) != TF_OK) {
    refuse(question, "%s", TF_Message(status));
    return;
  }
  for (int i = 0; i < question->num_outputs; i++) {
    question->outputs[i].value = got[i];
    if (!type_name(TF_TensorType(got[i]))) {
      refuse(question, "the output %s is neither float32 nor int32", question->outputs[i].name);
    }
  }
}

static void write_output(FILE *answers, const char *directory, const char *number, Tensor *tensor) {
  char file_name[300];
  snprintf(file_name, sizeof file_name, "%s-%s.bin", number, tensor->name);
  int rank = TF_NumDims(tensor->value);
  fprintf(answers, "out %s %s %d", tensor->name, type_name(TF_TensorType(tensor->value)), rank);
  for (int axis = 0; axis < rank; axis++) {
    fprintf(answers, " %lld", (long long)TF_Dim(tensor->value, axis));
  }
  fprintf(answers, " %s\n", file_name);
  FILE *file = open_in(directory, file_name, "wb");
  size_t bytes = TF_TensorByteSize(tensor->value);
  if (fwrite(TF_TensorData(tensor->value), 1, bytes, file) != bytes || fclose(file)) {
    die("%s: %s", file_name, strerror(errno));
  }
}

/* Runs a case that has been read, writes its answer and forgets its tensors. */
static void answer(Case *question, FILE *answers, const char *directory) {
  if (!question->number[0]) return;
  if (!question->error[0]) run(question);
  fprintf(answers, "case %s %s\n", question->number, question->signature);
  if (question->error[0]) fprintf(answers, "error %s %s\n", question->number, question->error);
  for (int i = 0; i < question->num_outputs; i++) {
    Tensor *output = &question->outputs[i];
    if (!question->error[0]) write_output(answers, directory, question->number, output);
    if (output->value) TF_DeleteTensor(output->value);
  }
  for (int i = 0; i < question->num_inputs; i++) {
    if (question->inputs[i].value) TF_DeleteTensor(question->inputs[i].value);
  }
}

static void load(const char *artifact) {
  const char *tags[] = {"serve"};
  graph = TF_NewGraph();
  status = TF_NewStatus();
  TF_SessionOptions *options = TF_NewSessionOptions();
  session = TF_LoadSessionFromSavedModel(options, NULL, artifact, tags, 1, graph, NULL, status);
  TF_DeleteSessionOptions(options);
  if (TF_GetCode(status) != TF_OK) {
    Case message = {0};
    refuse(&message, "%s", TF_Message(status));
    die("the SavedModel cannot be loaded: %s", message.error);
  }
}

int main(int count, char **arguments) {
  if (count != 4) die("expected ARTIFACT_DIR CASES_DIR ANSWERS_DIR");
  const char *cases_directory = arguments[2], *answers_directory = arguments[3];
  load(arguments[1]);
  FILE *cases = open_in(cases_directory, "cases.txt", "r");
  FILE *answers = open_in(answers_directory, "answers.txt", "w");
  static Case question;
  char *line = NULL;
  size_t capacity = 0;
  while (getline(&line, &capacity, cases) != -1) {
    char *rest, *word = strtok_r(line, " \n", &rest);
    if (!word) continue;
    if (!strcmp(word, "case")) {
      answer(&question, answers, answers_directory);
      memset(&question, 0, sizeof question);
      snprintf(question.number, sizeof question.number, "%s", next_word(&rest));
      snprintf(question.signature, sizeof question.signature, "%s", next_word(&rest));
    } else if (!strcmp(word, "in")) {
      add_input(&question, cases_directory, &rest);
    } else if (!strcmp(word, "out")) {
      add_output(&question, &rest);
    }
  }
  answer(&question, answers, answers_directory);
  if (fclose(answers)) die("answers.txt: %s", strerror(errno));
  free(line);
  fclose(cases);
  TF_CloseSession(session, status);
  TF_DeleteSession(session, status);
  TF_DeleteGraph(graph);
  TF_DeleteStatus(status);
  return 0;
}
