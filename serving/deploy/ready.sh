# Succeeds when every model named has a version that answers:  bash ready.sh PORT MODEL...
# The image has neither curl nor wget, and TensorFlow Serving no health endpoint: its status of a
# model is 200 whatever the state, so the state is looked for.
port="$1"
shift
for model in "$@"; do
    exec 3<>"/dev/tcp/127.0.0.1/$port" || exit 1
    printf 'GET /v1/models/%s HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$model" >&3
    answer="$(timeout 3 cat <&3)"
    exec 3>&-
    [[ "$answer" =~ \"state\":\ *\"AVAILABLE\" ]] || exit 1
done
